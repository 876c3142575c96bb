// The pairs of the page as columns, unpacked once: texts by pair, and each model's replies by pair.
const SIDES = ["before", "after"];
function codedColumn([values, codes]) {
  return (at) => values[codes[at]];
}
function pairRows(data) {
  const text = Object.fromEntries(Object.entries(data.texts).map(([name, column]) => [name, codedColumn(column)]));
  const { numbers } = data;
  const size = numbers.pool.length;
  // Of each model, the place of its reply to a pair; -1 where it was not asked.
  const places = data.replies.map(({ pair }) => {
    const place = new Int32Array(size).fill(-1);
    pair.forEach((number, at) => (place[number] = at));
    return place;
  });
  const probabilities = data.replies.map((own) => Object.fromEntries(SIDES.map((side) => [side, codedColumn(own[side])])));
  const outcomes = data.outcomes.map(([word]) => word);
  const asked = (pair) => places.flatMap((place, model) => (place[pair] < 0 ? [] : [model]));
  const reply = (pair, model) => {
    const [own, at] = [data.replies[model], places[model][pair]];
    return {
      outcome: outcomes[own.outcome[at]],
      answers: SIDES.map((side) => own[`answer_${side}`][at]),
      hundredths: SIDES.map((side) => probabilities[model][side](at)),
    };
  };
  const severity = (pair, model) => {
    if (model >= 0) return data.replies[model].severity[places[model][pair]];
    return Math.max(...asked(pair).map((each) => severity(pair, each)));
  };
  // Total variation between both distributions, in hundredths; that of one model, else the largest.
  const variation = (pair, model) => {
    if (model < 0) return Math.max(...asked(pair).map((each) => variation(pair, each)));
    const [before, after] = reply(pair, model).hundredths;
    return before && after ? before.reduce((sum, value, at) => sum + Math.abs(value - after[at]), 0) / 2 : 0;
  };
  const scene = (pair) => text.scene_name(pair) ?? String(text.scene(pair));
  const searched = (pair) =>
    [scene(pair), text.row(pair), text.path_before(pair), text.path_after(pair)].filter((each) => each != null).join("\n").toLowerCase();
  const picture = (pair, side) => {
    const [pool, number] = [numbers.pool[pair], numbers[`picture_${side}`][pair]];
    const original = data.files[pool]?.[number];
    return original ?? data.pictures[`${pool}-${number}`];
  };
  const truths = (pair) => SIDES.map((side) => numbers[`truth_${side}`][pair]);
  // Whether the models that were asked did not all give the same two answers.
  const disagree = (pair) => new Set(asked(pair).map((model) => reply(pair, model).answers.join())).size > 1;
  return { ...data, text, size, asked, reply, severity, variation, scene, searched, picture, truths, disagree, outcomeWords: outcomes };
}
// The pair as a row of a manifest: its own paths, else those of its pictures beside the page; null where it has neither.
function manifestRow(rows, pair) {
  const { text } = rows;
  const beside = (side) => rows.files[rows.numbers.pool[pair]]?.[rows.numbers[`picture_${side}`][pair]];
  const paths = SIDES.map((side) => text[`path_${side}`](pair) ?? (beside(side) && decodeURIComponent(beside(side))));
  if (paths.some((path) => path == null)) return null;
  const choices = text.choices(pair);
  const [before, after] = rows.truths(pair).map((at) => choices[at]);
  const factor = text.factor(pair);
  const row = { scene: text.scene_name(pair) ?? text.scene(pair), factor };
  if (factor) Object.assign(row, { from: text.value_before(pair), to: text.value_after(pair) });
  row.picture = paths[0];
  if (text.kind(pair) === "paraphrase") row.question_after = text.question_after(pair);
  else row.edited = paths[1];
  Object.assign(row, { question: text.question_before(pair), choices, answer_before: before, answer_after: after });
  if (text.row(pair) != null) row.id = text.row(pair);
  Object.assign(row, { query: text.query(pair), form: text.form(pair), name: text.name(pair) });
  if (rows.pair_kinds[rows.asked(pair)[0]] === "matched" && row.edited) row.kind = "matched";
  return JSON.stringify(row);
}
