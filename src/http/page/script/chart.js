// The chart of a pair: its controls work without a reload, and it updates itself or says that it is not live.

const CHART_PAUSE_MS = 1000; // minimum time between two refreshes of the chart
const CHART_AGE_MS = 30000; // age at which the chart is refreshed
const CHART_LATE_MS = 4000; // time after which a refresh that has not succeeded is reported
const CHART_TIMEOUT_MS = 10000; // time after which a request is repeated

let swapping = null;
let chartAt = performance.now();
let chartTimer = 0;
let changedAt = 0; // when the newest change arrived
let wantedAt = null; // when a refresh became necessary that has not succeeded yet

const labelOf = (control) =>
  `${control.getAttribute("aria-label") ?? control.parentElement.getAttribute("aria-label")} ${control.textContent}`;

// Replaces the chart with the chart of an address. Keyboard focus stays on the same control. Returns "done", "failed",
// or "replaced" if a newer request replaced this one.
const swap = async (address, focusOn) => {
  swapping?.abort();
  const current = (swapping = new AbortController());
  const begun = performance.now();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    current.abort();
  }, CHART_TIMEOUT_MS);
  try {
    const response = await fetch(address, { signal: current.signal });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    const chart = fresh.getElementById("chart");
    if (!chart) return "failed";
    const old = byId("chart");
    const focused = focusOn ?? (old.contains(document.activeElement) ? labelOf(document.activeElement) : null);
    const open = byId("numbers")?.open;
    // Another range, direction or pair has other times.
    if (new URL(address, location.href).href !== location.href) cursorTime = null;
    document.title = fresh.title;
    old.replaceWith(chart);
    if (open && byId("numbers")) byId("numbers").open = true;
    startCursor();
    if (focused) [...chart.querySelectorAll("a, summary, [role=slider]")].find((link) => labelOf(link) === focused)?.focus();
    chartAt = performance.now();
    // A change that arrived after the request may be missing from its response.
    wantedAt = changedAt > begun ? changedAt : null;
    isChartLate = false;
    showConnection();
    updateAges();
    return "done";
  } catch {
    return current.signal.aborted && !isLate ? "replaced" : "failed";
  } finally {
    clearTimeout(timer);
    if (swapping === current) swapping = null;
  }
};

const refreshChart = () => {
  if (!byId("chart")) return;
  changedAt = performance.now();
  wantedAt ??= changedAt;
  scheduleRefresh();
};

const scheduleRefresh = () => {
  if (chartTimer) return;
  const wait = Math.max(0, CHART_PAUSE_MS - (performance.now() - chartAt));
  chartTimer = setTimeout(async () => {
    chartTimer = 0;
    if (!swapping && (await swap(location.href)) === "done" && wantedAt !== null) scheduleRefresh();
  }, wait);
};

// Repeats a refresh that has failed, refreshes a chart that has become old, and reports a chart that is not live.
const checkChart = () => {
  if (!byId("chart") || document.visibilityState !== "visible") return;
  isChartLate = wantedAt !== null && performance.now() - wantedAt > CHART_LATE_MS;
  showConnection();
  const isDue = wantedAt !== null || performance.now() - chartAt > CHART_AGE_MS;
  if (isDue && !swapping && streamState === "live") scheduleRefresh();
};

document.addEventListener("click", async (click) => {
  const link = click.target.closest?.("a[data-swap]");
  if (!link || click.button !== 0 || click.metaKey || click.ctrlKey || click.shiftKey || click.altKey) return;
  click.preventDefault();
  const result = await swap(link.href, labelOf(link));
  if (result === "failed") location.assign(link.href);
  else if (result === "done" && link.href !== location.href) history.pushState(null, "", link.href);
});
addEventListener("popstate", async () => {
  if (byId("chart") && (await swap(location.href)) === "failed") location.reload();
});
