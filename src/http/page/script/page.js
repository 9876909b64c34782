// Starts the page: connects it to the live stream, and keeps ages and the chart up to date. All data comes from this
// server. Without this script, the page shows the same data, as of the time when it was loaded.

const onEvent = (event, data) => {
  if (data.now) serverClock.ahead = data.now - Date.now();
  streamState = "live";
  showConnection();
  if (event === "hello") {
    // The server has another version: its rows need its own style and script.
    if (!pageScript.src.endsWith(data.script)) location.reload();
  } else if (event === "latest") {
    applyUpdate(data);
    updateAges();
  }
};

const onLost = () => {
  streamState = "lost";
  showConnection();
};

const onWait = () => {
  streamState = "wait";
  showConnection();
  // The chart may have become old while the window was hidden.
  if (performance.now() - chartAt > CHART_PAUSE_MS) refreshChart();
};

setInterval(() => {
  if (document.visibilityState !== "visible") return;
  updateAges();
  checkChart();
}, 1000);

const pageScript = document.querySelector("script");
const loaded = document.querySelector("[data-now]");
if (loaded) serverClock.ahead = Number(loaded.dataset.now) - Date.now();
startTable();
startCursor();
updateAges();
shareStream({ onEvent, onLost, onWait });
