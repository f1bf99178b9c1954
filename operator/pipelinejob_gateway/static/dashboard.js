// Pages work without this but for changes: it keeps them current, asks before a change, and fills in what takes longer.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

async function ask(method, url, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  let told = null;
  try { told = JSON.parse(text); } catch { /* a page, or nothing */ }
  if (!answer.ok) throw new Error((told && told.detail) || `${answer.status} ${answer.statusText}`);
  return told;
}

function say(text) {
  $("#said").textContent = text;
}

// Current: what has changed is taken from the page as it would be now, at most once in two seconds.

let wanted = false, fetching = false;

async function refresh() {
  wanted = true;
  if (fetching) return;
  fetching = true;
  while (wanted) {
    wanted = false;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 404) { say("This job was deleted."); break; }
      if (answer.ok && !answer.redirected) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch { /* the server is away: the next change tries again */ }
    await new Promise((done) => setTimeout(done, 2000));
  }
  fetching = false;
}

function replace(page) {
  for (const part of $$("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || fresh.innerHTML === part.innerHTML) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const key = focused && (focused.dataset.do ? `[data-do="${focused.dataset.do}"]` : focused.getAttribute("href") && `a[href="${CSS.escape(focused.getAttribute("href"))}"]`);
    part.innerHTML = fresh.innerHTML;
    if (key && $(key, part)) $(key, part).focus();
  }
  document.title = page.title;
}

function listen() {
  if (!$("[data-live]")) return;
  const job = $("#head[data-name]"), query = new URLSearchParams(location.search);
  const asked = new URLSearchParams();
  if (job) { asked.set("name", job.dataset.name); asked.set("namespace", job.dataset.namespace); }
  else if (query.get("namespace")) asked.set("namespace", query.get("namespace"));
  const events = new EventSource(`/api/v1/events?${asked}`);
  events.onopen = refresh; // what happened until now
  for (const kind of ["ADDED", "MODIFIED", "DELETED"]) events.addEventListener(kind, refresh);
  addEventListener("pagehide", () => events.close());
}

async function load(part) {
  part.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(part.dataset.load, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = answer.ok ? $(part.dataset.part, page) : $(".told", page);
    if (found) part.replaceChildren(found);
  } catch { /* its link stays */ }
  part.removeAttribute("aria-busy");
}

// Changes: each is asked about first.

function confirmed(button) {
  const dialog = $("#confirm"), field = $("#confirm-field"), input = $("input", field), wants = button.dataset.field;
  $("#confirm-question").textContent = button.dataset.question;
  $("#confirm-more").textContent = button.dataset.more;
  $("#confirm-problem").textContent = "";
  $("#confirm-yes").textContent = button.textContent;
  field.hidden = input.disabled = !wants;
  if (wants) { $("span", field).textContent = wants; input.value = button.dataset.value; }
  dialog.showModal();
  (wants ? input : $("button[value=no]", dialog)).focus();
  $("form", dialog).onsubmit = async (event) => {
    if (event.submitter && event.submitter.value === "no") return;
    event.preventDefault();
    $("#confirm-yes").disabled = true;
    try {
      await change(button, wants && Number(input.value));
      dialog.close();
    } catch (error) {
      $("#confirm-problem").textContent = error.message;
    }
    $("#confirm-yes").disabled = false;
  };
}

async function change(button, value) {
  const { post, patch, delete: remove, body } = button.dataset;
  if (remove) {
    await ask("DELETE", remove);
    location.assign("/");
  } else if (patch) {
    await ask("PATCH", patch, { spec: { [button.dataset.field]: value } });
  } else {
    const made = await ask("POST", post, JSON.parse(body || "{}"));
    if (button.dataset.do === "redrive") {
      if (!made) throw new Error("Nothing is left to run again.");
      location.assign(`/jobs/${made.metadata.namespace}/${made.metadata.name}`);
    }
  }
  say(`${button.textContent}: done.`);
  refresh();
}

// A new job.

function documentOf(form) {
  const value = (name) => (form.elements[name] ? form.elements[name].value.trim() : "");
  const source = { csv: value("csv") };
  for (const name of ["images", "idColumn", "delimiter"]) if (value(name)) source[name] = value(name);
  const where = {};
  for (const line of $$("#where > li")) {
    const of = (name) => $(`[data-of=${name}]`, line).value;
    const column = of("column"), operator = of("operator");
    if (operator === "=" || operator === "in") where[column] = operator === "in" ? of("value").split(",").map((one) => plain(one.trim())) : plain(of("value"));
    else where[column] = { ...(isMapping(where[column]) ? where[column] : {}), [operator]: operator === "contains" ? of("value") : plain(of("value")) };
  }
  if (Object.keys(where).length) source.where = where;
  const functions = $$("#functions > li").map((line) => {
    const params = {};
    for (const input of $$("[data-param]", line)) if (input.value.trim()) params[input.dataset.param] = plain(input.value.trim());
    return { name: line.dataset.function, ...(Object.keys(params).length ? { params } : {}) };
  });
  const output = { path: value("path") || `out/${value("name")}`, format: value("format") };
  const spec = { source, functions, output, parallelism: Number(value("parallelism")), failurePolicy: { maxFailedRowsPercent: Number(value("maxFailedRowsPercent")) } };
  if (value("claim")) spec.data = { persistentVolumeClaim: { claimName: value("claim") } };
  return { apiVersion: "pipelinejob.dev/v1alpha1", kind: "PipelineJob", metadata: { name: value("name"), namespace: value("namespace") }, spec };
}

const isMapping = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function plain(text) {
  return /^-?(0|[1-9][0-9]*)(\.[0-9]+)?$/.test(text) ? Number(text) : text === "true" ? true : text === "false" ? false : text;
}

function table(rows) {
  const made = document.createElement("table");
  if (!rows.length) return made;
  const columns = Object.keys(rows[0].cells);
  const head = made.createTHead().insertRow();
  for (const name of ["row", ...columns]) {
    const cell = document.createElement("th");
    cell.scope = "col"; cell.textContent = name;
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const text of [row.row, ...columns.map((name) => row.cells[name])]) line.insertCell().textContent = text;
  }
  return made;
}

async function preview(form, wanted) {
  $("#previewed-document").textContent = JSON.stringify(wanted, null, 2);
  $("#previewed-told").textContent = "Looking …";
  $("#new-problem").textContent = "";
  try {
    const plan = await ask("POST", "/api/v1/plan", wanted);
    const { rows, exact, matching, malformed } = plan.sample;
    const of = exact ? "" : `the first ${rows.toLocaleString("en")} of `;
    $("#previewed-told").textContent = `Of ${of}${plan.rows.total.toLocaleString("en")} rows ${matching.toLocaleString("en")} match and ${malformed.toLocaleString("en")} are malformed; ${plan.shards.total} ${plan.shards.total === 1 ? "shard" : "shards"}.`;
    $("#previewed-problems").replaceChildren(...plan.problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    $("#previewed-rows").replaceChildren(table(plan.first));
    $("#columns").replaceChildren(...plan.columns.map((value) => Object.assign(document.createElement("option"), { value })));
    $("#columns-in-braces").replaceChildren(...plan.columns.map((name) => Object.assign(document.createElement("option"), { value: `images/{${name}}.jpg` })));
    return true;
  } catch (error) {
    $("#previewed-told").textContent = "Nothing yet.";
    $("#previewed-problems").replaceChildren();
    $("#previewed-rows").replaceChildren();
    $("#new-problem").textContent = error.message;
    return false;
  }
}

function newJob(form) {
  const add = (list, template) => {
    list.append(template.content.cloneNode(true));
    const made = list.lastElementChild;
    $("[data-remove]", made).onclick = () => made.remove();
    const input = $("input", made);
    if (input) input.focus();
  };
  $("#add-where").onclick = () => add($("#where"), $("#condition"));
  $("#add-function").onclick = () => add($("#functions"), document.getElementById(`function-${$("#function").value}`));
  $("#look").onclick = () => {
    if (!form.elements.csv.reportValidity()) return;
    const whole = documentOf(form), { csv, idColumn, delimiter } = whole.spec.source;
    preview(form, { ...whole, metadata: { ...whole.metadata, name: whole.metadata.name || "look" }, spec: { ...whole.spec, source: { csv, idColumn, delimiter }, functions: [], output: {} } });
  };
  $("#preview").onclick = () => { if (form.reportValidity()) preview(form, documentOf(form)); };
  form.onsubmit = async (event) => {
    event.preventDefault();
    $("#new-problem").textContent = "";
    try {
      const made = await ask("POST", "/api/v1/pipelinejobs", documentOf(form));
      location.assign(`/jobs/${made.metadata.namespace}/${made.metadata.name}`);
    } catch (error) {
      $("#new-problem").textContent = error.message;
    }
  };
}

// Who asks.

function signIn(form) {
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      await ask("POST", "/login", { token: form.elements.token.value });
      const next = new URLSearchParams(location.search).get("next") || "/";
      location.assign(/^\/(?![/\\])/.test(next) ? next : "/");
    } catch (error) {
      $("[role=alert]", form).textContent = error.message;
    }
  };
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (button) confirmed(button);
});
$$("[data-load]").forEach(load);
document.addEventListener("error", (event) => { // a picture that cannot be shown
  if (event.target.tagName === "IMG") event.target.classList.add("broken");
}, true);
if ($("#new")) newJob($("#new"));
if ($("#login")) signIn($("#login"));
if (document.cookie.includes("pipelinejob-signed-in=")) {
  const out = $("#sign-out");
  out.hidden = false;
  out.onclick = async () => { await ask("POST", "/logout", {}); location.assign("/login"); };
}
listen();
