// What needs the browser: times in the reader's zone, pages that refresh themselves while somebody looks.
"use strict";

const EVERY_MS = 5000;
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

function tell(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const then = new Date(time.dateTime);
    time.querySelector(".abs").textContent = absolute.format(then);
    time.querySelector(".rel").textContent = ago(then);
    time.title = time.dateTime;
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

function refresh() {
  const live = document.getElementById("live");
  if (live?.hasAttribute("hx-get") && !document.hidden && !isBusy(live)) live.dispatchEvent(new Event("refresh"));
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

document.getElementById("zone").textContent = `times are ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
tell(document);
document.addEventListener("htmx:after:swap", () => { tell(document); showAnswer(); });
document.addEventListener("click", copy);
document.addEventListener("copy", copyTrue);
document.addEventListener("change", chooseAll);
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY_MS);
setInterval(() => tell(document), 1000 * 10);
