// What needs the browser: times in the reader's zone, pages that refresh themselves while somebody looks.
"use strict";

const EVERY_MS = 5000;
const SPANS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const hour = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

function ago(then) {
  const seconds = Math.round((then - Date.now()) / 1000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return relative.format(Math.trunc(seconds / size), unit);
}

// A length of time as the server writes it.
function span(passed) {
  const seconds = Math.max(0, Math.round(passed));
  const place = Math.max(0, SPANS.findIndex(([, size]) => seconds >= size));
  if (seconds < 1) return "0 s";
  const [[unit, size], next] = [SPANS[place], SPANS[place + 1]];
  const count = Math.floor(seconds / size);
  const more = next && count < 10 ? Math.floor((seconds % size) / next[1]) : 0;
  return `${count} ${unit}` + (more ? ` ${more} ${next[0]}` : "");
}

// Only what changes is written: what somebody has marked stays marked.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tell(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const then = new Date(time.dateTime);
    time.title = time.dateTime;
    if (time.classList.contains("age")) {
      put(time, span((Date.now() - then) / 1000));
      continue;
    }
    put(time.querySelector(".abs"), absolute.format(then));
    put(time.querySelector(".rel"), ago(then));
  }
  for (const mark of root.querySelectorAll("[data-at]")) {
    const then = new Date(mark.dataset.at);
    if (mark.dataset.at) mark.textContent = (mark.textContent.includes(":") ? hour : day).format(then);
  }
}

// A part that is being used is not taken away: an open detail, a field with the caret, marked text.
function isBusy(live) {
  const marked = window.getSelection();
  return live.contains(document.activeElement) && document.activeElement.matches("input, select, textarea, summary")
    || live.querySelector("input:checked, dialog[open]") !== null
    || (marked !== null && !marked.isCollapsed && live.contains(marked.anchorNode));
}

let askedAt = Date.now();
let answeredAt = Date.now();

function refresh() {
  const live = document.getElementById("live");
  if (!live?.hasAttribute("hx-get") || document.hidden || isBusy(live)) return;
  askedAt = Date.now();
  live.dispatchEvent(new Event("refresh"));
}

// What a page says is only as old as its last response: while there is none, it says so.
function hear(answered) {
  const bar = document.getElementById("silent");
  if (answered) answeredAt = Date.now();
  if (!answered) put(bar, `No response since ${hour.format(answeredAt)}: this page is from then.`);
  bar.hidden = answered;
}

// In our place a router may answer, whatever its status; that is not put into the page.
function judge(event) {
  const { sourceElement, response, text } = event.detail.ctx;
  if (sourceElement.id !== "live") return;
  const ours = [204, 304].includes(response.status) || response.headers.has("HX-Redirect") || text.startsWith('<div id="live"');
  hear(ours && response.status < 500);
  if (!ours) event.preventDefault();
}

function tick() {
  tell(document);
  const every = document.getElementById("live")?.dataset.every ?? EVERY_MS;
  if (Date.now() - askedAt >= every) refresh();
}

function copy(event) {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).textContent;
  navigator.clipboard.writeText(text).then(() => { button.textContent = "Copied"; });
}

// What is spelt out, as in \u202e, is copied as it is.
function copyTrue(event) {
  const marked = window.getSelection();
  let text = marked?.toString() ?? "";
  const isMarked = (one) => marked.containsNode(one, true) && text.includes(one.textContent);
  const spelt = text ? [...document.querySelectorAll("[data-true]")].filter(isMarked) : [];
  if (!spelt.length) return;
  for (const one of spelt) text = text.replace(one.textContent, () => JSON.parse(one.dataset.true));
  event.clipboardData.setData("text/plain", text);
  event.preventDefault();
}

// What a button has asked for is where the reader looks, and what is read aloud.
function showAnswer() {
  const answer = document.querySelector("[data-focus]");
  if (!answer) return;
  answer.focus({ preventScroll: true });
  answer.scrollIntoView({ block: "nearest" });
}

function chooseAll(event) {
  if (!event.target.matches("[data-all]")) return;
  for (const box of document.querySelectorAll(`input[name="${event.target.dataset.all}"]`)) box.checked = event.target.checked;
}

// With shift, all from the box that was clicked before, too.
let clickedBefore = null;

function chooseRange(event) {
  const box = event.target;
  if (!box.matches('td input[type="checkbox"]')) return;
  const boxes = [...document.querySelectorAll(`input[name="${box.name}"]`)];
  const [from, to] = [boxes.indexOf(clickedBefore), boxes.indexOf(box)].sort((a, b) => a - b);
  if (event.shiftKey && from >= 0) for (const one of boxes.slice(from, to + 1)) one.checked = box.checked;
  clickedBefore = box;
}

document.getElementById("zone").textContent = `Times are ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
tell(document);
document.addEventListener("htmx:after:swap", () => { tell(document); showAnswer(); });
document.addEventListener("htmx:after:request", judge);
document.addEventListener("htmx:error", (event) => { if (event.target.id === "live") hear(false); });
document.addEventListener("click", copy);
document.addEventListener("click", chooseRange);
document.addEventListener("copy", copyTrue);
document.addEventListener("change", chooseAll);
document.addEventListener("visibilitychange", refresh);
setInterval(tick, 1000);
