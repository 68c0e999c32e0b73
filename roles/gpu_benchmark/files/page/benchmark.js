"use strict";
{
  const REPORT = JSON.parse(document.getElementById("benchmark-data").textContent);
  const $ = (id) => document.getElementById(id);
  const fixed = (value, digits) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const when = new Date(REPORT.generated);
  const onGpu = REPORT.machine.device === "cuda";

  $("asof").append(
    el("span", { "class": `badge ${onGpu ? "good" : "warn"}`, "text": onGpu ? "measured on a GPU" : "measured on CPU" }),
    ` ${when.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" })} UTC`);
  $("lines").append(...REPORT.lines.map((text) => el("li", { text })));
  $("machine").textContent = REPORT.machine.name;
  $("notes").append(...REPORT.notes.map((text) => el("li", {}, el("span", { "class": "badge warn", "text": "note" }), text)));
  $("charts").append(...REPORT.charts.map(Charts.draw));

  $("parameters").append(el("tbody", {}, ...Object.entries(REPORT.parameters).map(([name, value]) => el("tr", {},
    el("th", { scope: "row", text: name.replaceAll("_", " ") }), el("td", { text: value === "" ? "-" : String(value) })))));

  const columns = [
    ["repetition", (run) => run.repeat + 1], ["phase", (run) => run.phase], ["job", (_run, job) => job.job || job.number + 1],
    ["images/s", (_run, job) => fixed(job.images / (job.ended - job.began), 2)], ["seconds", (_run, job) => fixed(job.ended - job.began, 2)],
    ["longest step, s", (_run, job) => fixed(Math.max(...job.steps_s), 3)],
    ["where", (_run, job) => [job.machine.host, job.machine.gpu, job.machine.gpu_id].filter(Boolean).join(" ")],
  ];
  const numeric = (at) => (at > 2 && at < 6 ? "number" : null);
  const rows = REPORT.runs.flatMap((run) => run.jobs.map((job) => el("tr", {}, ...columns.map(([, value], at) => (
    el("td", { "class": numeric(at), "text": String(value(run, job)) }))))));
  $("jobs").append(el("thead", {}, el("tr", {}, ...columns.map(([text], at) => el("th", { scope: "col", "class": numeric(at), text })))),
    el("tbody", {}, ...rows));
  $("status").textContent = plural(rows.length, "job");
}
