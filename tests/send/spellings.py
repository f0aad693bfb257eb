"""Forbidden addresses in every spelling that came to mind, as URLs; `{port}` is where a test may listen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_NUMBERS = "another radix or fewer parts"
_WRAPPED = "IPv4 inside of IPv6"
_SIGNS = "signs that become ASCII"
_PARTS = "the parts of a URL"
_NAMES = "a name"
_PLAIN = "plain"
_METADATA = "a cloud's metadata"

_HOSTS: dict[str, tuple[str, ...]] = {
    _PLAIN: (
        "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
        "169.254.1.1", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1",
        "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.0.0.8", "192.88.99.1", "[::1]", "[::]",
        "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[fe80::1]", "[fe80::1%25lo]",
        "[fe80::1%25]", "[fe80::1%251]", "[::1%25lo]", "[fc00::1]", "[FD12:3456::1]", "[fec0::1]", "[ff02::1]",
        "[2001:db8::1]", "[3fff::1]", "[100::1]", "[2001:2::1]", "[5f00::1]", "[4000::1]",
    ),
    _METADATA: (
        "169.254.169.254", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "025177524776", "0251.0376.0251.0376",
        "169.254.43518", "169.16689662", "0251.254.0xa9fe", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]",
        "[::169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]", "[fd20:ce::254]",
        "100.100.100.200", "1684301000", "0x646464c8", "[::ffff:100.100.100.200]", "169.254.0.23", "2851995671",
        "0xa9fe0017", "169.254.170.2", "169.254.10.10", "192.0.0.192", "168.63.129.16", "2822734096", "0xa83f8110",
        "[::ffff:168.63.129.16]", "[64:ff9b::a83f:8110]", "[2002:a83f:8110::]", "①⑥⑨.②⑤④.①⑥⑨.②⑤④",
    ),
    _NUMBERS: (
        "2130706433", "0x7f000001", "0X7F000001", "0x00000000007f000001", "017700000001",
        "0000017700000001", "127.1", "127.0.1", "0177.1", "0x7f.1", "0177.0.0.1", "0x7f.0x0.0x0.0x1", "0x7f.0.0.01",
        "0177.0x0.0.1", "127.0x000001", "127.0.0.0x1", "0000177.0.0.1", "0x7f.00000000.0.0x000001", "0", "00", "0x0",
        "0x",
        "0.0", "0.0.0", "127.65535", "127.16777215", "4294967295", "0xffffffff", "037777777777", "4294967296",
        "18446744073709551617", "256.256.256.256", "127.0.0.257", "127.0.0.1.", "127.1.", "2130706433.", "0.", "127..1",
        ".127.0.0.1", "127.0.0.1..", "127.0.0.1.1", "3232235777", "167772161", "0xc0a80101", "10.1", "012.1", "1e3",
    ),
    _WRAPPED: (
        "[::ffff:127.0.0.1]", "[::FFFF:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[::127.0.0.1]",
        "[::7f00:1]", "[::ffff:0.0.0.0]", "[::ffff:10.0.0.1]", "[::ffff:c0a8:101]", "[::ffff:0:127.0.0.1]",
        "[::ffff:0:a00:1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]",
        "[64:ff9b:1::127.0.0.1]", "[64:ff9b:1::808:808]", "[64:ff9b:1:a00:0:100::]", "[2002:7f00:1::]",
        "[2002:7f00:1::1]", "[2002:a00:1::]", "[2002:c0a8:101::1]", "[2001:0:808:808:0:0:80ff:fffe]",
        "[2001::f5ff:fffe]", "[fe80::5efe:127.0.0.1]", "[2600::5efe:127.0.0.1]", "[2600::200:5efe:10.0.0.1]",
        "[::ffff:0x7f.0.0.1]", "[::ffff:2130706433]", "[127.0.0.1]", "[::ffff:127.0.0.1%25lo]",
    ),
    _SIGNS: (
        "１２７．０．０．１", "１２７.０.０.１", "①②⑦.⓪.⓪.①", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1",
        "127.0.0.1。", "１27.0.0.1", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "١٢٧.٠.٠.١", "²130706433", "０x7f000001", "ⓛocalhost",
        "ｌｏｃａｌｈｏｓｔ", "localhoﬅ", "loc\u00adalhost", "local\u200bhost", "ℓocalhost", "LOCALHOſT",
        "xn--localhost-", "%31%32%37%2e%30%2e%30%2e%31", "%3127.0.0.1", "127.0.0.%31", "127%2e0%2e0%2e1",
        "127%E3%80%820%E3%80%820%E3%80%821",
        "%6c%6f%63%61%6c%68%6f%73%74", "localhost%2e", "127.0.0.1%00.public.example", "127.0.0.1%2f.public.example",
        "%5b::1%5d", "[%3a%3a1]", "[：：1]",
    ),
    _NAMES: (
        "localhost", "localhost.", "LOCALHOST", "LocalHost.", "%4cocalhost", "localhost..", ".localhost", "..", ".",
        "-",
    ),
}  # fmt: skip
_URLS: dict[str, tuple[str, ...]] = {
    _PARTS: (
        "http://public.example@127.0.0.1:{port}/", "http://public.example:80@127.0.0.1:{port}/",
        "http://public.example%40127.0.0.1:{port}/", "http://a@b@127.0.0.1:{port}/", "http://:@127.0.0.1:{port}/",
        "http://@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@public.example/",
        "http://127.0.0.1:{port}?@public.example/",
        "http://127.0.0.1:{port}/@public.example/", "http://127.0.0.1:{port};@public.example/",
        "http://127.0.0.1:{port}\\@public.example/", "http://public.example\\@127.0.0.1:{port}/",
        "http:\\\\127.0.0.1:{port}\\", "http:/127.0.0.1:{port}/", "http:127.0.0.1:{port}/", "http:///127.0.0.1:{port}/",
        "http:////127.0.0.1:{port}/", "//127.0.0.1:{port}/", "127.0.0.1:{port}/", "HTTP://127.0.0.1:{port}/",
        "hTTpS://127.0.0.1:{port}/", " http://127.0.0.1:{port}/", "http://127.0.0.1 :{port}/",
        "http:// 127.0.0.1:{port}/",
        "http://127.0.0.1\t:{port}/", "http://127.0.0.1:{port}\r\n/", "http://127.0.0.1:\u0660{port}/",
        "http://127.0.0.1:{port}:80/",
        "http://127.0.0.1:+{port}/", "http://127.0.0.1:0{port}/", "http://public.example:80:127.0.0.1:{port}/",
        "http://127.0.0.1,public.example:{port}/", "http://127.0.0.1&public.example:{port}/",
        "http://{{127.0.0.1}}:{port}/",
        "http://[::1]127.0.0.1:{port}/", "http://[::1]@127.0.0.1:{port}/", "http://[127.0.0.1:{port}/",
        "http://[::1:{port}/",
        "http://[::1]]:{port}/", "http://[[::1]]:{port}/", "http://[]:{port}/", "http://:{port}/",
        "http://127.0.0.1／:{port}/",
        "http://public.example#＠127.0.0.1:{port}/", "http://public.example＠127.0.0.1:{port}/",
        "file://127.0.0.1/etc/hostname", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/x",
        "ftp://127.0.0.1:{port}/", "ws://127.0.0.1:{port}/", "unix:///tmp/socket", "http+unix://%2ftmp%2fsocket/",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spelling:
    """`url` has the port in it where the address that is meant is one of this machine."""

    kind: str
    url: str

    def at(self, port: int) -> str:
        return self.url.replace("{port}", str(port)).replace("{{", "{").replace("}}", "}")


def _all() -> Iterator[Spelling]:
    for kind, hosts in _HOSTS.items():
        yield from (Spelling(kind, f"http://{host}:{{port}}/hook") for host in hosts)
    for kind, urls in _URLS.items():
        yield from (Spelling(kind, url) for url in urls)


SPELLINGS = tuple(_all())
