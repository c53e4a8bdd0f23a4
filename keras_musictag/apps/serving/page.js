// Draws the result of TaggingService.answer, and follows the player. Runs once, when the page is loaded; Gradio defines
// `element`, `props` and `watch`. All text from outside is set by textContent.

const ROWS = 10;
const KINDS = ["genre", "instrument", "mood", "voice", "era", "tempo", "other"];
const SVG = "http://www.w3.org/2000/svg";
let wanted = ""; // kind of tags to show; empty for all
let shown = []; // per result: edges of the windows, cursors, and ticks with their probabilities

function make(kind, name, text) {
  const node = document.createElement(kind);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

const player = () => document.querySelector("#sound audio");

// The track is divided halfway between the centers of neighbouring windows.
function edgesOf(times, seconds) {
  const inner = times.slice(1).map((time, i) => (times[i] + time) / 2);
  return [0, ...inner, seconds];
}

function strip(probabilities, edges, seconds) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${seconds} 1`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("shape-rendering", "crispEdges");
  probabilities.forEach((p, i) => {
    const cell = document.createElementNS(SVG, "rect");
    cell.setAttribute("x", edges[i]);
    cell.setAttribute("width", Math.max(edges[i + 1] - edges[i], 0));
    cell.setAttribute("height", 1);
    cell.setAttribute("fill-opacity", p);
    picture.append(cell);
  });
  return picture;
}

function row(tag, p, probabilities, edges, seconds, view) {
  const cells = [make("span", "tag", tag), make("span", "bar"), make("span", "number", p.toFixed(3))];
  const fill = cells[1].appendChild(make("i", "fill"));
  fill.style.width = `${100 * p}%`;
  const tick = cells[1].appendChild(make("i", "tick"));
  view.ticks.push([tick, probabilities]);
  const track = make("span", "strip");
  track.title = "Click to hear";
  track.append(strip(probabilities, edges, seconds));
  view.cursors.push(track.appendChild(make("i", "cursor")));
  track.addEventListener("click", (event) => {
    const box = track.getBoundingClientRect();
    if (player()) player().currentTime = (seconds * (event.clientX - box.left)) / box.width;
  });
  return [...cells, track];
}

function axis(seconds) {
  const line = make("span", "axis");
  const step = [1, 2, 5, 10, 30, 60, 120, 300].find((size) => seconds / size <= 4) ?? 600;
  for (let time = 0; time <= seconds; time += step) {
    const mark = line.appendChild(make("i", "", `${time} s`));
    mark.style.left = `${(100 * time) / seconds}%`;
  }
  return line;
}

// One button per kind of tags, and one for all; the choice applies to all models, and is kept for the next file.
function filters(kinds) {
  const line = make("p", "kinds");
  for (const kind of ["", ...kinds]) {
    const button = line.appendChild(make("button", kind === wanted ? "chosen" : "", kind || "all"));
    button.type = "button";
    button.setAttribute("aria-pressed", kind === wanted);
    button.addEventListener("click", () => {
      wanted = kind;
      draw();
    });
  }
  return line;
}

function card(result, seconds) {
  const box = make("section", "result");
  box.append(make("h3", "", result.model));
  if (result.error) {
    box.append(make("p", "problem", result.error));
    return box;
  }
  const gram = result.taggram;
  const view = { edges: edgesOf(gram.times, seconds), cursors: [], ticks: [] };
  for (const note of result.notes ?? []) box.append(make("p", "note", note));
  const kinds = KINDS.filter((kind) => Object.values(result.kinds ?? {}).includes(kind));
  if (kinds.length > 1) box.append(filters(kinds));
  const table = box.appendChild(make("div", "rows"));
  const tags = Object.entries(result.tags).filter(([tag]) => !wanted || !kinds.length || result.kinds[tag] === wanted);
  if (!tags.length) table.append(make("span", "none", `It has no tags of kind ${wanted}.`));
  for (const [tag, p] of tags.slice(0, ROWS)) {
    const column = gram.tags.indexOf(tag);
    const probabilities = gram.probabilities.map((window) => window[column]);
    table.append(...row(tag, p, probabilities, view.edges, seconds, view));
  }
  table.append(axis(seconds));
  const windows = `${gram.window_seconds.toFixed(1)} s`;
  const what = gram.times.length > 1 ? `; ticks: at the player's position. Windows of ${windows}.` : `. One window of ${windows}.`;
  box.append(make("p", "hint", `Bars: mean over the audio${what}`));
  shown.push(view);
  return box;
}

function download(name, type, text) {
  const link = make("a", "download", name);
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  return link;
}

function csv(answer) {
  // Spreadsheets would read a leading = + - @ as a formula.
  const cell = (value) => `"${String(value).replace(/^(?=[=+\-@\t\r])/, "'").replaceAll('"', '""')}"`;
  const lines = ["file,model,tag,probability"];
  for (const result of answer.results)
    for (const [tag, p] of Object.entries(result.tags ?? {}))
      lines.push([cell(answer.file), cell(result.model), cell(tag), p].join(","));
  return lines.join("\n") + "\n";
}

function draw() {
  const answer = props.value;
  shown = [];
  const root = element.querySelector("div") ?? element;
  root.querySelectorAll("a.download").forEach((link) => URL.revokeObjectURL(link.href));
  root.replaceChildren();
  if (!answer || typeof answer !== "object") return;
  if (answer.error) {
    root.append(make("p", "problem", answer.error));
    return;
  }
  if (answer.note) root.append(make("p", "note", answer.note));
  const cards = root.appendChild(make("div", "cards"));
  cards.append(...answer.results.map((result) => card(result, answer.seconds)));
  const stem = answer.file.replace(/\.[^.]*$/, "") || "tags";
  const links = root.appendChild(make("p", "links"));
  links.append(download(`${stem}.json`, "application/json", JSON.stringify(answer, null, 1)));
  links.append(download(`${stem}.csv`, "text/csv", csv(answer)));
}

function follow() {
  const time = player()?.currentTime ?? 0;
  for (const view of shown) {
    const end = view.edges.at(-1);
    const position = Math.min(time, end);
    const window = Math.max(0, view.edges.findLastIndex((edge) => edge <= position));
    for (const cursor of view.cursors) cursor.style.left = `${(100 * position) / end}%`;
    for (const [tick, probabilities] of view.ticks) {
      tick.style.left = `${100 * probabilities[Math.min(window, probabilities.length - 1)]}%`;
    }
  }
  requestAnimationFrame(follow);
}

// Gradio loads its encoder of streamed sound when the microphone appears. Record, pressed before it is there, throws
// "... is not a constructor", or "... 'MediaRecorder' ... is not supported" when it is there and not yet registered, and
// leaves a recording of nothing; so it is pressed once more, until the encoder is ready.
function recordAgain(event) {
  const button = () => document.querySelector("#microphone .stop-button, #microphone .record-button");
  const early = /not a constructor|MediaRecorder.*not supported/.test(event.reason?.message);
  if (!early || !button()?.matches(".stop-button")) return;
  event.preventDefault();
  button().click();
  setTimeout(() => button()?.matches(".record-button") && button().click(), 300);
}

window.addEventListener("unhandledrejection", recordAgain);
watch("value", draw);
draw();
follow();
