"""Pages of CI's job list, made up: jobs of 3 kB that have ended, with all that CI tells of their media."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from xml.sax.saxutils import escape

from benchmarks.deliveries import BUCKET, REGION, TAG

PAGE_SIZE = 100
_QUEUE = "p2242ab62c7c94486915508540933a2c6"
_BEGAN = datetime(2026, 6, 1, 8, tzinfo=UTC)

_FORMAT = {
    "Bitrate": "4212.094000", "Duration": "61.440000", "FormatLongName": "QuickTime / MOV",
    "FormatName": "mov,mp4,m4a,3gp,3g2,mj2", "NumProgram": "0", "NumStream": "2", "Size": "32348881",
    "StartTime": "0.000000",
}  # fmt: skip
_AUDIO = {
    "Bitrate": "128.040000", "Channel": "2", "ChannelLayout": "stereo",
    "CodecLongName": "AAC (Advanced Audio Coding)", "CodecName": "aac", "CodecTag": "0x6134706d",
    "CodecTagString": "mp4a", "CodecTimeBase": "1/48000", "Duration": "61.440000", "Index": "1", "Language": "und",
    "SampleFmt": "fltp", "SampleRate": "48000", "StartTime": "0.000000", "Timebase": "1/48000",
}  # fmt: skip
_VIDEO = {
    "AvgFps": "25.000000", "Bitrate": "4080.217000", "CodecLongName": "H.264 / AVC / MPEG-4 AVC / MPEG-4 part 10",
    "CodecName": "h264", "CodecTag": "0x31637661", "CodecTagString": "avc1", "CodecTimeBase": "1/50",
    "ColorPrimaries": "bt709", "ColorRange": "tv", "ColorTransfer": "bt709", "Duration": "61.440000",
    "Fps": "25.000000", "HasBFrame": "2", "Height": "1080", "Index": "0", "Language": "und", "Level": "40",
    "NumFrames": "1536", "PixFormat": "yuv420p", "Profile": "High", "RefFrames": "1", "Rotation": "0.000000",
    "StartTime": "0.000000", "Timebase": "1/12800", "Width": "1920",
}  # fmt: skip


def pages(count: int) -> list[bytes]:
    """Return `count` pages of PAGE_SIZE jobs, each page but the last with a token for the next."""
    return [_page(number, last=number == count - 1) for number in range(count)]


def _page(number: int, *, last: bool) -> bytes:
    jobs = "".join(_job(number * PAGE_SIZE + place) for place in range(PAGE_SIZE))
    token = "" if last else f"<NextToken>{number + 1}</NextToken>"
    return f"<?xml version='1.0' encoding='utf-8'?>\n<Response>{jobs}{token}</Response>".encode()


def _job(number: int) -> str:
    created = _BEGAN - timedelta(seconds=number)
    job_id, name = f"j{number:032x}", f"lecture-{number:06}"
    return _element(
        "JobsDetail",
        Code="Success",
        Message="",
        JobId=job_id,
        State="Success",
        Progress="100",
        CreationTime=_time(created),
        StartTime=_time(created + timedelta(seconds=4)),
        EndTime=_time(created + timedelta(seconds=95)),
        QueueId=_QUEUE,
        Tag=TAG,
        Input={"BucketId": BUCKET, "Region": REGION, "Object": f"incoming/2026/06/01/{name}.mov"},
        Operation=_operation(name),
    )


def _operation(name: str) -> dict[str, object]:
    made = f"published/{name}.mp4"
    return {
        "TemplateId": "t1460606b9752148c4ab182f55163ba7cd",
        "TemplateName": "1080p for the web",
        "Output": {"Region": REGION, "Bucket": BUCKET, "Object": made},
        "MediaInfo": {"Format": _FORMAT, "Stream": {"Audio": _AUDIO, "Subtitle": "", "Video": _VIDEO}},
        "MediaResult": {
            "OutputFile": {
                "Bucket": BUCKET,
                "Region": REGION,
                "ObjectName": made,
                "Md5Info": {"ObjectName": made, "Md5": "3df1f845d2ffd20a525a93ec40014d90"},
            }
        },
        "UserData": "course=media-101; lecture notes, captions and slides follow; " * 5,
        "JobLevel": "0",
    }


def _element(tag: str, **children: object) -> str:
    return f"<{tag}>{_inside(children)}</{tag}>\n"


def _inside(children: Mapping[str, object]) -> str:
    return "".join(
        _element(tag, **value) if isinstance(value, Mapping) else f"<{tag}>{escape(str(value))}</{tag}>\n"
        for tag, value in children.items()
    )


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
