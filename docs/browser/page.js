// The page: a file is dropped or chosen, its tags are drawn. Nothing is sent anywhere.

const MOST = 5; // tags of each kind
const find = (selector) => document.querySelector(selector);
const status = (text, wrong = false) => {
  find("#status").textContent = text;
  find("#status").classList.toggle("wrong", wrong);
};

/** An element with text and children. */
function element(name, className, ...children) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}

function bar(tag, probability) {
  const meter = element("meter", "");
  meter.value = probability;
  return element("li", "", element("span", "", tag), meter, element("output", "", probability.toFixed(2)));
}

/** Draw the most probable tags of each kind; kinds with the most probable tag come first. */
function draw(model, probabilities) {
  const order = probabilities.map((_, column) => column).sort((a, b) => probabilities[b] - probabilities[a]);
  const kinds = [...new Set(order.map((column) => model.kinds[column]))];
  const sections = kinds.map((kind) => {
    const columns = order.filter((column) => model.kinds[column] === kind).slice(0, MOST);
    const bars = columns.map((column) => bar(model.tags[column], probabilities[column]));
    return element("section", "", element("h2", "", kind), element("ul", "", ...bars));
  });
  find("#tags").replaceChildren(...sections);
}

let newest = 0; // a file that is chosen while another is tagged replaces it

async function tagFile(tagger, file) {
  const number = ++newest;
  find("#tags").replaceChildren();
  status(`Decoding ${file.name}…`);
  try {
    const progress = (share) => number === newest && status(`Tagging ${file.name}: ${Math.round(100 * share)} %`);
    const probabilities = await tagger.tagFile(file, progress);
    if (number !== newest) return;
    draw(tagger.model, probabilities);
    status(file.name);
  } catch (error) {
    const reason = error.name === "EncodingError" ? "this browser cannot decode it." : error.message;
    if (number === newest) status(`${file.name}: ${reason}`, true);
  }
}

async function start() {
  status("Loading the model…");
  const {loadTagger} = await import("./tagger.js").catch(() => {
    throw new Error("onnxruntime-web is missing. Write a folder with it and a model: docs/browser/build.py.");
  });
  const tagger = await loadTagger();
  const {name, vocabulary, licence} = tagger.model;
  find("#model").textContent = `${name}, tags of ${vocabulary}, ${licence}`;
  const input = find("input"), zone = find("label");
  input.addEventListener("change", () => input.files.length && tagFile(tagger, input.files[0]));
  addEventListener("dragover", (event) => event.preventDefault()); // else the browser opens the file
  addEventListener("dragenter", () => zone.classList.add("over"));
  addEventListener("dragleave", (event) => event.relatedTarget || zone.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) tagFile(tagger, event.dataTransfer.files[0]);
  });
  input.disabled = false;
  status("Ready.");
}

start().catch((error) => status(error.message, true));
