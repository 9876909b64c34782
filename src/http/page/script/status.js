// The clock of the server, ages, and the state of the connection.

const byId = (id) => document.getElementById(id);
const serverClock = { ahead: 0 };
const now = () => Date.now() + serverClock.ahead;
const clockText = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

// The server puts AGE_STEPS before this script: the units of ages, each with the number of seconds from which on the next
// unit is used, its length in seconds, and its name.
const ageText = (ms) => {
  const seconds = Math.floor(Math.abs(ms) / 1000);
  if (seconds < 1) return "now";
  const [, unit, name] = AGE_STEPS.find(([end]) => seconds < end);
  const text = `${Math.floor(seconds / unit)} ${name}`;
  return ms < 0 ? `in ${text}` : `${text} ago`;
};

const updateAges = () => {
  for (const age of document.querySelectorAll(".age")) {
    const text = ageText(now() - Number(age.dataset.since));
    if (age.textContent !== text) age.textContent = text;
  }
  const quiet = byId("quiet");
  if (quiet) {
    const since = Number(quiet.querySelector(".age").dataset.since);
    quiet.hidden = now() - since <= Number(quiet.dataset.after);
  }
};

// While the connection is lost, the state of a series is unknown. The last state would look current.
const showStates = (known) => {
  for (const state of document.querySelectorAll(".state")) {
    if (!known) state.dataset.known ??= state.textContent;
    state.textContent = known ? (state.dataset.known ?? state.textContent) : "Unknown";
    if (known) delete state.dataset.known;
    state.classList.toggle("unknown", !known);
  }
};

// The state of the stream: "wait", "live" or "lost".
let streamState = "wait";
// Whether the chart could not be updated for some time.
let isChartLate = false;

const showConnection = () => {
  const state = streamState === "live" && isChartLate ? "late" : streamState;
  if (document.body.dataset.link === state) return;
  document.body.dataset.link = state;
  showStates(state !== "lost");
  byId("link").textContent = {
    wait: () => "Connecting",
    live: () => "Live",
    late: () => {
      const asOf = clockText(Number(byId("chart").dataset.now));
      return `The chart is not live. It shows the data as of ${asOf} UTC; retrying.`;
    },
    lost: () => `Connection lost at ${clockText(now())} UTC. The data below is older; reconnecting.`,
  }[state]();
};
