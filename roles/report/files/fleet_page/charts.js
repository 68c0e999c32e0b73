"use strict";
/* Charts with uPlot. Its own legend is not used: names are put in as text. */
const Charts = (() => {
  const drawn = [];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rounded = (value) => (value === null || value === undefined ? "-" : Number(value.toPrecision(4)).toLocaleString("en"));
  const zoned = (chart, options) => {
    try {
      return new Intl.DateTimeFormat("en-GB", { timeZone: chart.timezone || "UTC", ...options });
    } catch {
      return new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options });
    }
  };
  const place = (chart, x) => (chart.time
    ? zoned(chart, { dateStyle: "medium", timeStyle: "short" }).format(new Date(x * 1000))
    : rounded(x));

  /* Stacked: each series on the one before. Bars: each series at places of its own around the common one. */
  const arranged = (chart) => {
    const values = chart.series.map((series) => series.values);
    if (chart.kind === "stacked") {
      const sums = chart.x.map(() => 0);
      const data = values.map((list) => list.map((value, index) => {
        sums[index] += value ?? 0;
        return value === null ? null : sums[index];
      }));
      return { x: chart.x, data, index: (at) => at };
    }
    if (chart.kind === "bars") {
      const gaps = chart.x.slice(1).map((x, index) => x - chart.x[index]);
      const step = (gaps.length ? Math.min(...gaps) : 1) / (values.length + 1);
      const x = chart.x.flatMap((at) => values.map((_list, number) => at + (number - (values.length - 1) / 2) * step));
      const data = values.map((list, number) => list.flatMap((value) => values.map((_l, other) => (other === number ? value : null))));
      return { x, data, index: (at) => Math.floor(at / values.length), step };
    }
    return { x: chart.x, data: values, index: (at) => at };
  };

  const pen = (plot, write) => {
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = css("--muted");
    ctx.fillStyle = css("--text");
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    write(ctx, plot.bbox);
    ctx.restore();
  };
  const rule = (ctx, fromX, fromY, toX, toY) => {
    ctx.beginPath();
    ctx.moveTo(fromX, fromY);
    ctx.lineTo(toX, toY);
    ctx.stroke();
  };

  const marks = (chart) => (plot) => pen(plot, (ctx, bbox) => {
    let free = -Infinity;
    let line = 0;
    (chart.marks || []).forEach((mark) => {
      const x = Math.round(plot.valToPos(mark.at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) return;
      rule(ctx, x, bbox.top, x, bbox.top + bbox.height);
      const width = ctx.measureText(mark.label).width;
      const left = Math.min(x + 4 * devicePixelRatio, bbox.left + bbox.width - width);
      line = left < free ? line + 1 : 0;
      free = left + width + 6 * devicePixelRatio;
      ctx.fillText(mark.label, left, bbox.top + (12 + 13 * line) * devicePixelRatio);
    });
  });

  /* From the top; a label that would lie on the one above goes below its own line. */
  const levels = (chart) => (plot) => pen(plot, (ctx, bbox) => {
    let above = -Infinity;
    [...(chart.levels || [])].sort((one, other) => other.at - one.at).forEach((level) => {
      const y = Math.round(plot.valToPos(level.at, "y", true));
      rule(ctx, bbox.left, y, bbox.left + bbox.width, y);
      let base = y - 4 * devicePixelRatio;
      if (base - 11 * devicePixelRatio < above) base = y + 12 * devicePixelRatio;
      above = base;
      ctx.fillText(level.label, bbox.left + 4 * devicePixelRatio, base);
    });
  });

  const table = (chart) => {
    const head = el("tr", {}, el("th", { scope: "col", text: chart.x_label || (chart.time ? "time" : "x") }),
      ...chart.series.map((series) => el("th", { scope: "col", text: series.name })));
    const rows = chart.x.map((x, index) => el("tr", {}, el("th", { scope: "row", text: place(chart, x) }),
      ...chart.series.map((series) => el("td", { text: rounded(series.values[index]) }))));
    (chart.levels || []).forEach((level) => rows.push(el("tr", {}, el("th", { scope: "row", text: level.label }),
      el("td", { text: rounded(level.at) }))));
    return el("div", { "class": "scroll", "tabindex": "0", "role": "region", "aria-label": `${chart.title}, table` },
      el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
  };

  const plot = (entry) => {
    const { chart, box, values } = entry;
    entry.plot?.destroy();
    const { x, data, index, step } = arranged(chart);
    const text = css("--muted");
    const axis = { stroke: text, grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 }, font: "11px system-ui, sans-serif" };
    const spaced = (_plot, splits) => splits.map((split) => rounded(split));
    const series = chart.series.map((one, number) => {
      const colour = css(`--l${number % 8}`);
      return {
        label: `series ${number + 1}`, stroke: colour, width: 2, spanGaps: false, points: { show: chart.kind === "lines" && x.length < 30 },
        dash: chart.kind === "lines" && number >= 4 ? [6, 3] : undefined,
        fill: chart.kind === "lines" ? undefined : css(`--f${number % 8}`),
        paths: chart.kind === "bars" ? uPlot.paths.bars({ size: [0.9, 60], align: 0 }) : undefined,
      };
    });
    const show = (at) => values.forEach((value, number) => {
      value.textContent = at === null || at === undefined ? "" : rounded(chart.series[number].values[index(at)]);
    });
    const pad = chart.kind === "bars" ? step * (chart.series.length + 1) / 2 : 0;
    const options = {
      width: Math.max(200, box.clientWidth), height: 210, legend: { show: false }, series: [{}, ...series],
      scales: {
        x: { time: Boolean(chart.time), range: (_plot, low, high) => (low === high ? [low - 1, high + 1] : [low - pad, high + pad]) },
        y: { range: (_plot, low, high) => {
          const most = Math.max(high, ...(chart.levels || []).map((level) => level.at));
          return [Math.min(0, low), most > 0 ? most * 1.08 : 1];
        } },
      },
      axes: [
        { ...axis, label: chart.x_label || undefined, labelSize: 18, labelFont: "11px system-ui, sans-serif",
          ...(chart.time ? {} : { values: spaced }), ...(chart.kind === "bars" ? { splits: () => chart.x, grid: { show: false } } : {}) },
        { ...axis, label: chart.y_label || undefined, labelSize: 18, size: 46, labelFont: "11px system-ui, sans-serif", values: spaced },
      ],
      bands: chart.kind === "stacked" ? series.slice(1).map((_one, number) => ({ series: [number + 2, number + 1] })) : [],
      cursor: { drag: { x: false, y: false }, points: { show: chart.kind === "lines" } },
      hooks: { draw: [marks(chart), levels(chart)], setCursor: [(self) => show(self.cursor.idx)] },
      ...(chart.time ? { tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), entry.zone) } : {}),
    };
    if (chart.time) {
      // 24 hours everywhere, whatever the browser's language.
      const hour = uPlot.fmtDate("{HH}:{mm}");
      const day = uPlot.fmtDate("{D} {MMM}");
      options.axes[0].values = (self, splits) => splits.map((split) => {
        const date = options.tzDate(split);
        return date.getHours() === 0 && date.getMinutes() === 0 && splits.length > 1 && splits[1] - splits[0] >= 43200 ? day(date) : hour(date);
      });
    }
    entry.plot = new uPlot(options, [x, ...data], box);
  };

  const draw = (chart) => {
    const values = chart.series.map(() => el("b"));
    const box = el("div", { "class": "plot", "role": "img", "aria-label": `${chart.title}: ${chart.series.map((series) => series.name).join(", ")}` });
    const legend = el("ul", { "class": "keys" }, ...chart.series.map((series, number) => el("li", {},
      el("i", { "class": `swatch ${chart.kind === "lines" ? "k" : "c"}${number % 8}` }), el("span", { text: series.name }), values[number])));
    const details = el("details", { ontoggle: (event) => {
      if (event.target.open && !event.target.querySelector("table")) event.target.append(table(chart));
    } }, el("summary", { text: "as a table" }));
    const figure = el("figure", {}, el("figcaption", { text: chart.title }), legend, box, chart.note ? el("p", { "class": "note", "text": chart.note }) : null,
      chart.time ? el("p", { "class": "note", "text": `Times are in ${chart.timezone || "UTC"}.` }) : null, details);
    const entry = { chart, box, values, zone: chart.timezone || "UTC" };
    try {
      new Intl.DateTimeFormat("en", { timeZone: entry.zone });
    } catch {
      entry.zone = "UTC";
    }
    drawn.push(entry);
    new ResizeObserver(() => {
      if (box.clientWidth && box.clientWidth !== entry.width) {
        entry.width = box.clientWidth;
        plot(entry);
      }
    }).observe(box);
    return figure;
  };

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.filter((entry) => entry.width).forEach(plot));
  return { draw };
})();
