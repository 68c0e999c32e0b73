"use strict";
{
  const REPORT = JSON.parse(document.getElementById("day-data").textContent);
  const { figures } = REPORT;
  const $ = (id) => document.getElementById(id);
  const percent = (share) => (share === null ? "-" : `${(100 * share).toLocaleString("en", { maximumFractionDigits: 1 })} %`);
  const amount = (value, unit) => `${value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 })} ${unit}`;
  const zoned = (time) => {
    const options = { dateStyle: "medium", timeStyle: "short", timeZone: REPORT.timezone };
    try {
      return `${new Date(time).toLocaleString("en-GB", options)} ${REPORT.timezone}`;
    } catch {
      return `${new Date(time).toLocaleString("en-GB", { ...options, timeZone: "UTC" })} UTC`;
    }
  };
  const tile = (id, figure, name, note) => el("li", { id }, el("b", { text: figure }), el("span", { text: name }), el("small", { text: note || "" }));
  const worst = figures.desktops_worst;

  $("asof").textContent = `${REPORT.source ? `${REPORT.source}, ` : ""}the day before ${zoned(REPORT.generated)}`;
  $("tiles").append(
    tile("t-desktops", percent(figures.desktops_got), "of their CPU time desktops got", plural(figures.desktops, "desktop")),
    tile("t-worst", percent(worst ? worst.share : null), "in a desktop's worst five minutes", worst ? `${worst.desktop}, ${zoned(worst.time)}` : ""),
    tile("t-harvested", amount(figures.harvested_ghz_hours, "GHz h"), "harvested by compute", plural(figures.compute_machines, "compute machine")),
    tile("t-with", percent(figures.utilisation_with), "of the CPUs used", `without compute ${percent(figures.utilisation_without)}`),
  );
  $("charts").append(...REPORT.charts.map(Charts.draw));
  $("status").textContent = REPORT.charts.length ? `Samples of five minutes from the vCenter, ${REPORT.charts[0].x.length} of them.` : "The vCenter has no samples of this time.";
}
