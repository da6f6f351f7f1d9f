"use strict";

// Texts of the data only become text nodes, because they may contain anything.

const data = JSON.parse(document.getElementById("data").textContent);
const AT_ONCE = 30; // answers that are shown before a click on "Show more"
const SHORT = 40; // characters of a table's cell that stays on one line
const GAP = "—";
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text
  return node;
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// --- the report: headings, tables, figures -------------------------------------------------------

const BLOCKS = {
  heading: (block) => make(`h${block.level}`, {}, block.text),
  text: (block) => make("p", {}, block.text),
  list: (block) => make("ul", {}, ...block.items.map((item) => make("li", {}, item))),
  code: (block) => make("pre", { tabindex: "0" }, block.text),
  figure: (block) => {
    const image = make("img", { src: block.image, alt: `Figure: ${block.name}` });
    return make("figure", { class: "scroll", tabindex: "0" }, image);
  },
  table: makeTable,
};

function makeTable(block) {
  const classes = block.header.map((_, column) => {
    const long = block.rows.some((row) => row[column].length > SHORT);
    return { class: [block.right[column] && "right", long && "long"].filter(Boolean).join(" ") };
  });
  const cells = (row) => row.map((cell, column) => make("td", classes[column], cell));
  const rows = block.rows.map((row) => make("tr", {}, ...cells(row)));
  const body = make("tbody", {}, ...rows);
  const heads = block.header.map((name, column) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => sort(heads, rows, body, column));
    return make("th", { scope: "col", ...classes[column] }, button);
  });
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
  const name = `Table of ${block.header.join(", ")}`;
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table);
}

// A column is sorted up, then down, then back into the order of the report.
function sort(heads, rows, body, column) {
  const next = { null: "ascending", ascending: "descending", descending: null };
  const order = next[heads[column].getAttribute("aria-sort")];
  for (const head of heads) head.removeAttribute("aria-sort");
  if (order) heads[column].setAttribute("aria-sort", order);
  body.append(...(order ? sorted(rows, column, order === "ascending" ? 1 : -1) : rows));
}

// Sort by the numbers at the start of the cells if all cells have one, else by text; gaps come last.
function sorted(rows, column, sign) {
  const text = (row) => row.cells[column].textContent;
  const isGap = (row) => text(row).startsWith(GAP);
  const filled = rows.filter((row) => !isGap(row));
  const numeric = filled.every((row) => /^[-+]?\d/.test(text(row)));
  const compare = numeric
    ? (a, b) => parseFloat(text(a)) - parseFloat(text(b))
    : (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
  return [...filled.sort((a, b) => sign * compare(a, b)), ...rows.filter(isGap)];
}

function showReport() {
  const nodes = data.blocks.map((block) => BLOCKS[block.kind](block));
  document.getElementById("report").append(...nodes);
  const deepest = Object.keys(data.weights).length > 1 ? "h2" : "h2, h3";
  const headings = document.getElementById("report").querySelectorAll(deepest);
  headings.forEach((heading, number) => (heading.id = `section-${number}`));
  const targets = [...headings, document.getElementById("answers-title")];
  const links = targets.map((to) => make("a", { href: `#${to.id}` }, to.textContent));
  document.getElementById("contents").append(...links);
}

// --- the answers ---------------------------------------------------------------------------------

const several = (key) => new Set(data.sets.map((set) => set[key])).size > 1;
const levels = ["exp", "tag", "name"].filter((key) => key === "name" || several(key));
const label = (set) => levels.map((key) => set[key]).join(" / ");

// [operation, reference word, hypothesis word] for each column of the alignment.
function columns(diff) {
  return diff.flatMap(([operation, reference, hypothesis]) => {
    const above = reference ? reference.split(" ") : [];
    const below = hypothesis ? hypothesis.split(" ") : [];
    const count = Math.max(above.length, below.length);
    return Array.from({ length: count }, (_, n) => [operation, above[n], below[n]]);
  });
}

const answers = data.sets.flatMap((set, number) =>
  set.answers.map((answer) => ({
    ...answer,
    set,
    number,
    errors: columns(answer.diff).filter(([operation]) => operation !== "=").length,
    text: [answer.id, answer.prompt, answer.hyp, ...answer.refs].join("\n").toLowerCase(),
  })),
);

const hasAudio = (answer) => typeof answer.clip === "number";
const ORDERS = {
  set: () => 0,
  errors: (a, b) => b.errors - a.errors,
  posterior: (a, b) => (a.posterior ?? Infinity) - (b.posterior ?? Infinity) || 0,
};

function chosen(form) {
  const words = form.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (answer) =>
    (!form.task.value || answer.task === form.task.value) &&
    (!form.set.value || answer.number === Number(form.set.value)) &&
    (!form.wrong.checked || answer.wrong) &&
    (!form.misrouted.checked || answer.misrouted) &&
    (!form.audio.checked || hasAudio(answer)) &&
    words.every((word) => answer.text.includes(word));
  return answers.filter(fits).sort(ORDERS[form.order.value]);
}

// A caption in other words than the references need not be wrong.
function judge(answer) {
  const [right, wrong] = data.verdicts[answer.task];
  const name = answer.wrong ? "verdict wrong" : "verdict";
  return make("span", { class: name }, answer.wrong ? wrong : right);
}

function card(answer) {
  const title = make("h3", {}, make("bdi", {}, answer.id));
  const facts = [
    judge(answer),
    make("span", {}, label(answer.set)),
    make("span", {}, `task ${answer.task}`),
  ];
  if (answer.expert !== null) facts.push(...routing(answer));
  const prompt = make("p", { class: "prompt" }, make("bdi", {}, answer.prompt), " ");
  const seen = { true: "seen in training", false: "unseen in training", null: "seen? not known" };
  prompt.append(make("span", { class: "tag" }, seen[answer.seen]));
  const more = make("details", {}, make("summary", {}, "As written, layer weights"));
  more.addEventListener("toggle", () => more.append(...details(answer)), { once: true });
  const head = make("header", {}, title, make("p", { class: "facts" }, ...facts));
  return make("li", {}, head, prompt, alignment(answer), player(answer), more);
}

function routing(answer) {
  const p = answer.posterior === null ? "p not known" : `p = ${answer.posterior.toFixed(3)}`;
  const expert = make("span", {}, `expert ${answer.expert}, ${p}`);
  return answer.misrouted
    ? [expert, make("span", { class: "verdict misrouted" }, "⚠ misrouted")]
    : [expert];
}

function alignment(answer) {
  const blank = "∗∗∗";
  const words = columns(answer.diff).map(([operation, above, below]) =>
    make(
      "span",
      { class: operation === "=" ? "word" : `word ${operation}` },
      make("span", { class: "ref", dir: "auto" }, above ?? blank),
      make("span", { class: "hyp", dir: "auto" }, below ?? blank),
      make("span", { class: "mark" }, operation === "=" ? "" : operation),
    ),
  );
  const name = `reference and hypothesis, ${answer.errors} word errors`;
  const empty = make("span", { class: "quiet" }, "reference and hypothesis have no words");
  return make(
    "div",
    { class: "diff", role: "group", "aria-label": name },
    ...(words.length ? words : [empty]),
  );
}

function player(answer) {
  if (!hasAudio(answer)) return make("p", { class: "quiet" }, answer.clip);
  const src = `data:${data.media};base64,${data.clips[answer.clip]}`;
  const name = `clip of ${answer.id}`;
  return make("audio", { controls: "", preload: "metadata", src, "aria-label": name });
}

function details(answer) {
  const texts = [
    ["Hypothesis", [answer.hyp]],
    [answer.refs.length > 1 ? "References" : "Reference", answer.refs],
  ];
  const list = texts.flatMap(([name, lines]) => [
    make("dt", {}, name),
    ...lines.map((line) => make("dd", { dir: "auto" }, line || GAP)),
  ]);
  return [make("dl", {}, ...list), ...layerWeights(answer)];
}

// The chosen expert and the shared one; all experts if no prompt was routed.
function layerWeights(answer) {
  const weights = data.weights[answer.set.exp];
  if (!weights) return [];
  const all = Object.entries(weights.experts);
  const used = all.filter(([name]) => name === answer.expert || name === "shared");
  return (answer.expert === null ? all : used).flatMap(([name, row]) => {
    const largest = Math.max(...row.map(Math.abs)) || 1;
    const title = `Layer weights of the expert ${name}, the largest ±${largest.toFixed(3)}`;
    return [make("h4", {}, title), make("div", { class: "bars" }, ...bars(weights, row, largest))];
  });
}

function bars({ encoders }, row, largest) {
  let first = 0;
  return encoders.map(([name, states]) => {
    const own = row.slice(first, first + states);
    first += states;
    const drawn = barChart(own, largest, 1 / row.length, name);
    return make("figure", {}, drawn, make("figcaption", {}, name));
  });
}

// Bars above or below zero, in units of the expert's largest weight; `start` is the mean of all layers.
function barChart(weights, largest, start, name) {
  const [step, half] = [12, 24];
  const height = (weight) => (half * Math.abs(weight)) / largest;
  const top = (weight) => (weight < 0 ? half : half - height(weight));
  const shown = weights.map((weight) => (weight === null ? GAP : weight.toFixed(4)));
  const rects = weights.map((weight, n) => {
    const size = { x: n * step + 1, y: top(weight), width: step - 2, height: height(weight) };
    return draw("rect", size, draw("title", {}, `${name}, layer ${n}: ${shown[n]}`));
  });
  const width = weights.length * step;
  const level = half - height(start);
  return draw(
    "svg",
    { viewBox: `0 0 ${width} ${2 * half}`, width, height: 2 * half, role: "img",
      "aria-label": `${name}: ${shown.join(", ")}` },
    ...rects,
    draw("line", { x1: 0, x2: width, y1: half, y2: half, class: "zero" }),
    draw("line", { x1: 0, x2: width, y1: level, y2: level, class: "start" }),
  );
}

function showAnswers() {
  const [form, list] = ["filter", "list"].map((id) => document.getElementById(id));
  const [count, more] = ["count", "more"].map((id) => document.getElementById(id));
  let fitting = [];
  const showMore = () => {
    const shown = list.children.length;
    list.append(...fitting.slice(shown, shown + AT_ONCE).map(card));
    more.hidden = list.children.length === fitting.length;
  };
  const update = () => {
    fitting = chosen(form.elements);
    count.textContent = `${fitting.length} of ${answers.length} answers`;
    list.replaceChildren();
    showMore();
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update)); // after the fields are empty
  more.addEventListener("click", showMore);
  fillForm(form.elements);
  update();
}

function fillForm(fields) {
  for (const task of new Set(answers.map((answer) => answer.task)))
    fields.task.append(make("option", { value: task }, task));
  data.sets.forEach((set, number) =>
    fields.set.append(make("option", { value: number }, label(set))),
  );
  const counts = {
    wrong: (answer) => answer.wrong,
    misrouted: (answer) => answer.misrouted,
    audio: hasAudio,
  };
  for (const [name, has] of Object.entries(counts))
    fields[name].parentElement.append(` (${answers.filter(has).length})`);
  const cut = data.sets.filter((set) => set.answers.length < set.total);
  const parts = cut.map((set) => `${set.answers.length} of ${set.total} of ${label(set)}`);
  document.getElementById("parts").textContent = parts.length
    ? `Answers on this page, evenly spread: ${parts.join(", ")}.`
    : "";
}

document.title = `Results: ${data.title}`;
showReport();
document.getElementById("none").hidden = answers.length > 0;
document.getElementById("browser").hidden = answers.length === 0;
if (answers.length) showAnswers();
