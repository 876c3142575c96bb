// One pair as a card: both pictures side by side, blinking, or their difference; every model's answers and probabilities.
const MOST_CHOICES = 8;
const MOST_CHOICES_OF_SEVERAL = 4;
const MOVE_MARKS = JSON.parse(document.getElementById("move-marks")?.textContent ?? "{}");
function pairCard(rows, pair, view) {
  const { text } = rows;
  const factor = text.factor(pair);
  const values = SIDES.map((side) => text[`value_${side}`](pair));
  const change = factor
    ? [`${factor}: `, element("b", {}, `${values[0]} → ${values[1]}`)]
    : [element("b", {}, rows.kinds[text.kind(pair)])];
  const scene = element("small", {}, ` scene ${rows.scene(pair)}`);
  const questions = [...new Set([text.question_before(pair), text.question_after(pair)])].map((question) => `“${question}”`);
  const card = element("article", { class: "pair-card", tabindex: "0", "data-pair": String(pair) });
  card.append(element("p", { class: "change" }, ...change, scene), ...pairPictures(rows, pair, factor, values, view));
  card.append(element("p", { class: "question" }, questions.join(" then ")));
  const models = rows.asked(pair);
  for (const model of models) card.append(replyTable(rows, pair, model, models.length > 1));
  const paths = [...new Set(SIDES.map((side) => text[`path_${side}`](pair)).filter((path) => path != null))].join(" → ");
  const source = [text.row(pair) == null ? "" : `row ${text.row(pair)}`, paths].filter(Boolean).join(", ");
  if (source) card.append(element("p", { class: "source" }, element("small", {}, source)));
  return card;
}
function pairPictures(rows, pair, factor, values, view) {
  const urls = SIDES.map((side) => rows.picture(pair, side));
  const duo = element("div", { class: "duo" });
  urls.forEach((url, side) => {
    const picture = url
      ? element("img", { src: url, alt: `scene ${rows.scene(pair)}${factor ? ` with ${factor} ${values[side]}` : `, ${SIDES[side]}`}` })
      : element("div", { class: "absent" }, "no picture in this page");
    if (url) picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth <= 96));
    duo.append(element("figure", {}, picture, element("figcaption", {}, values[side] ?? SIDES[side])));
  });
  const note = element("small", { class: "view-note" });
  const buttons = urls[0] && urls[1] && urls[0] !== urls[1] ? viewButtons(duo, note, values, view) : [];
  const row = manifestRow(rows, pair);
  const copy = element("button", { type: "button", class: "copy" }, "Copy as manifest row");
  if (row) copy.addEventListener("click", () => copyText(copy, row));
  else Object.assign(copy, { disabled: true, title: "its pictures were drawn; theodolite report --pairs-dir writes them as files" });
  return [duo, element("p", { class: "views" }, ...buttons, copy, note)];
}
// `view` keeps a card's mode while it is out of sight.
function viewButtons(duo, note, values, view) {
  let timer;
  const names = { blink: "Blink", difference: "Difference" };
  const buttons = Object.entries(names).map(([mode, name]) => element("button", { type: "button", "data-mode": mode }, name));
  const turn = () => {
    duo.dataset.shown = duo.dataset.shown === "1" ? "0" : "1";
    note.textContent = values[duo.dataset.shown] ?? SIDES[duo.dataset.shown];
  };
  const show = () => {
    clearInterval(timer);
    duo.dataset.view = view.mode ?? "side";
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.mode === view.mode));
    note.textContent = view.mode === "difference" ? "black where both are equal" : "";
    if (view.mode !== "blink") return;
    duo.dataset.shown = "1";
    turn();
    // Where the system asks for less motion, a click on the picture turns it.
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
      timer = setInterval(() => (duo.isConnected ? turn() : clearInterval(timer)), 700);
    }
  };
  duo.addEventListener("click", () => view.mode === "blink" && turn());
  for (const button of buttons) {
    button.addEventListener("click", () => {
      view.mode = view.mode === button.dataset.mode ? undefined : button.dataset.mode;
      show();
    });
  }
  show();
  return buttons;
}
function replyTable(rows, pair, model, several) {
  const { outcome, answers, hundredths } = rows.reply(pair, model);
  const choices = rows.text.choices(pair);
  const truths = rows.truths(pair);
  const right = answers.map((answer, side) => (answer < 0 ? null : answer === truths[side]));
  const [word, meaning] = MOVE_MARKS[outcome];
  const marks = [element("span", { class: `mark ${word}`, title: meaning }, word)];
  if (!right.includes(null)) {
    const wrong = right[0] ? "wrong after" : right[1] ? "wrong before" : "wrong";
    const isRight = right[0] && right[1];
    marks.push(" ", element("span", { class: `mark ${isRight ? "right" : "not-right"}` }, isRight ? "right" : wrong));
  }
  const caption = element("caption", {}, ...(several ? [element("b", {}, rows.models[model]), " "] : []), ...marks);
  const table = element("table", { class: "reply", "data-outcome": outcome, "data-model": rows.models[model] }, caption);
  table.append(element("thead", {}, element("tr", {}, ...["choice", "before", "after"].map((name) => element("th", { scope: "col" }, name)))));
  const body = element("tbody", {});
  const largest = (at) => Math.max(...hundredths.map((values) => values?.[at] ?? 0));
  const named = (at) => truths.includes(at) || answers.includes(at);
  const ranked = choices.map((_, at) => at).sort((one, other) => named(other) - named(one) || largest(other) - largest(one) || one - other);
  const shown = new Set(ranked.slice(0, several ? MOST_CHOICES_OF_SEVERAL : MOST_CHOICES));
  choices.forEach((choice, at) => {
    if (!shown.has(at)) return;
    const cells = SIDES.map((_, side) => probabilityCell(hundredths[side]?.[at], truths[side] === at, answers[side] === at));
    body.append(element("tr", {}, element("th", { scope: "row" }, choice), ...cells));
  });
  const hidden = ranked.filter((at) => !shown.has(at));
  if (hidden.length) {
    const most = (Math.max(...hidden.map(largest)) / 100).toFixed(2);
    body.append(element("tr", {}, element("td", { colspan: "3" }, element("small", {}, `${hidden.length} more, each at most ${most}`))));
  }
  table.append(body);
  return table;
}
function probabilityCell(hundredths, isTrue, isAnswer) {
  const cell = element("td", { class: [isAnswer ? "answer" : "", isAnswer && !isTrue ? "wrong-answer" : "", isTrue ? "truth" : ""].join(" ").trim() });
  if (hundredths != null) {
    const bar = element("i", {});
    bar.style.width = `${hundredths}%`;
    const number = element("span", { class: "value" }, (hundredths / 100).toFixed(2));
    cell.append(element("span", { class: "probability", "aria-hidden": "true" }, bar), " ", number);
  } else cell.append("–");
  if (isTrue) cell.append(" ", element("small", {}, "true"));
  if (isAnswer) cell.append(" ", element("small", {}, isTrue ? "answer" : "answer, wrong"));
  return cell;
}
async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages from http addresses have no clipboard of their own.
    const area = element("textarea", { class: "skip", readonly: "" }, text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy as manifest row"), 1500);
}
