"use strict";
// Opens what is folded before printing, and folds it again.
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  unfolded.forEach((d) => { d.open = true; });
});
addEventListener("afterprint", () => unfolded.forEach((d) => { d.open = false; }));

(async () => {
  const holder = document.getElementById("packed");
  if (!holder) return;
  const at = (id) => document.getElementById(id);
  const said = JSON.parse(at("words").textContent);
  const bytes = Uint8Array.from(atob(holder.textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(stream).text());
  holder.remove();
  const PAGE = 50;
  const [TASK, ID, GROUP, TARGET, PREFIX, TEXT, RESULTS] = [0, 1, 2, 3, 4, 5, 6];
  const [VALUE, OUTCOME, ANSWER, REPLY, MARGIN] = [0, 1, 2, 3, 4];
  const [partly, unjudged, scored] = ["partly", "not judged", "scored"].map((name) => data.outcomes.indexOf(name));
  const searched = new Map();
  let kept = data.samples, page = 0;

  // Everything is put in as text: nothing of the data can become markup.
  const make = (name, text, kind) => {
    const element = document.createElement(name);
    if (text !== undefined && text !== null) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const choices = (id, values) => values.forEach(([value, label]) => {
    const option = make("option", label);
    option.value = value;
    at(id).append(option);
  });
  choices("task", data.tasks.map((name, i) => [i, name]));
  choices("group", [...new Set(data.samples.map((s) => s[GROUP]))].filter(Boolean)
    .sort(new Intl.Collator("en", { numeric: true }).compare).map((g) => [g, g]));
  choices("outcome", data.outcomes.map((name, i) => [i, said.outcomes[name]])
    .filter(([i]) => data.samples.some((s) => s[RESULTS].some((r) => r && r[OUTCOME] === i))));
  if (data.runs.length < 2) at("changed").closest("label").hidden = true;

  const haystack = (sample) => {
    if (!searched.has(sample)) {
      const parts = [sample[ID], sample[GROUP], sample[TARGET], sample[TEXT]];
      for (const result of sample[RESULTS]) if (result) parts.push(result[ANSWER], result[REPLY]);
      searched.set(sample, parts.join("\n").toLowerCase());
    }
    return searched.get(sample);
  };
  const filter = () => {
    const [task, group, outcome, changed] = ["task", "group", "outcome", "changed"].map((id) => at(id).value);
    const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    kept = data.samples.filter((s) => {
      const results = s[RESULTS];
      if (task !== "" && s[TASK] !== Number(task)) return false;
      if (group !== "" && s[GROUP] !== group) return false;
      if (outcome !== "" && !results.some((r) => r && r[OUTCOME] === Number(outcome))) return false;
      if (changed !== "") {
        const first = results[0], last = results[results.length - 1];
        if (!first || !last || first[OUTCOME] === unjudged || last[OUTCOME] === unjudged) return false;
        const way = Math.sign(last[VALUE] - first[VALUE]);
        if (changed === "any" ? way === 0 : way !== Number(changed)) return false;
      }
      return words.every((word) => haystack(s).includes(word));
    });
    page = 0;
    show();
  };

  // In words, and in figures where the words leave it open.
  const ended = (result) => {
    const open = result[OUTCOME] === partly || result[OUTCOME] === scored;
    return said.outcomes[data.outcomes[result[OUTCOME]]] + (open ? ` ${Number(result[VALUE].toPrecision(4))}` : "");
  };
  const block = (title, text) => {
    const part = make("div");
    part.append(make("strong", title), make("pre", text));
    return part;
  };
  const detail = (sample) => {
    const row = make("tr", null, "open"), cell = make("td");
    cell.colSpan = 3 + data.runs.length;
    const prefix = data.prefixes[sample[PREFIX]];
    if (prefix) {
      const fold = make("details");
      fold.append(make("summary", said.prefix), make("pre", prefix));
      cell.append(fold);
    }
    cell.append(block(said.question, sample[TEXT]), block(said.target, sample[TARGET]));
    const both = make("div", null, "two");
    sample[RESULTS].forEach((result, i) => {
      if (!result) return;
      const title = `${data.runs[i]} · ${ended(result)}`;
      const margin = result[MARGIN] === null ? "" : `\n${said.margin} ${result[MARGIN].toFixed(4)}`;
      const answer = result[ANSWER] === null ? "" : `\n${said.answer} ${result[ANSWER]}`;
      both.append(block(title, `${result[REPLY]}${answer}${margin}`.trim()));
    });
    cell.append(both);
    row.append(cell);
    return row;
  };
  const line = (sample) => {
    const row = make("tr", null, "row"), first = make("td"), more = make("button", sample[ID].slice(0, 12), "more");
    more.setAttribute("aria-expanded", "false");
    first.append(more);
    row.append(first, make("td", sample[GROUP] || data.tasks[sample[TASK]]), make("td", sample[TEXT].trim().slice(0, 160)));
    for (const result of sample[RESULTS]) {
      const cell = make("td");
      if (result) cell.append(make("i", null, `o${result[OUTCOME]}`), ` ${ended(result)}`);
      cell.className = "key-cell";
      row.append(cell);
    }
    row.addEventListener("click", () => {
      const open = more.getAttribute("aria-expanded") === "true";
      more.setAttribute("aria-expanded", String(!open));
      if (open) row.nextSibling.remove(); else row.after(detail(sample));
    });
    return row;
  };
  const show = () => {
    const pages = Math.max(1, Math.ceil(kept.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    at("body").replaceChildren(...kept.slice(page * PAGE, (page + 1) * PAGE).map(line));
    at("count").textContent = said.count.replace("{n}", kept.length.toLocaleString("en"))
      .replace("{all}", data.samples.length.toLocaleString("en"));
    at("place").textContent = `${page + 1} / ${pages}`;
    at("back").disabled = page === 0;
    at("next").disabled = page >= pages - 1;
  };
  for (const label of data.runs) {
    const head = make("th", label);
    head.scope = "col";
    at("head").append(head);
  }
  let waiting;
  at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 150); });
  for (const id of ["task", "group", "outcome", "changed"]) at(id).addEventListener("change", filter);
  at("back").addEventListener("click", () => { page -= 1; show(); });
  at("next").addEventListener("click", () => { page += 1; show(); });
  addEventListener("keydown", (event) => {
    // A wide table or a long text that has the focus scrolls by the same arrows.
    if (event.target.matches("input, select, .scroll, pre") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); at("search").focus(); }
    else if (event.key === "ArrowRight" && !at("next").disabled) { page += 1; show(); }
    else if (event.key === "ArrowLeft" && !at("back").disabled) { page -= 1; show(); }
  });
  at("loading").hidden = true;
  at("browser").hidden = false;
  show();
})();
