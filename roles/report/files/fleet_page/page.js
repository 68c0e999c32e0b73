"use strict";
const DATA = JSON.parse(document.getElementById("fleet-data").textContent);
const CLUSTERS = DATA.clusters || [];
const VMS = DATA.vms || [];
const JOBS = DATA.jobs || [];
const ROOMS = DATA.rooms || [{}];
const CAPACITY = DATA.capacity || [];
const POINTS = DATA.points || [];
const $ = (id) => document.getElementById(id);

const GPU_STATES = {
  free: "free", part: "room for more", full: "full", reboot: "waits for a reboot", unset: "not set up",
};
const STATES = {
  room: "free or room for more", ...GPU_STATES, away: "host not in service", asleep: "machines suspended or off", findings: "with findings",
};
const POWER = { poweredOn: "on", poweredOff: "off", suspended: "suspended" };
const NOBODY = "no tenant";

const state = { q: "", cluster: "", model: "", profile: "", state: "", tenant: "", colour: "profile" };

/* ---- what is what ------------------------------------------------------------------------------------------- */

const wholeName = (gpu) => `${gpu.model} whole`;
const plain = (profile) => profile.replace(/^(grid|nvidia)_/i, "");
const vmsOf = (gpu) => [...(gpu.vms || []), ...(gpu.slots || []).map((slot) => slot.vm)].filter((vm) => vm !== undefined);
const profilesOn = (gpu) => [...(gpu.slots || []).map((slot) => slot.profile || ""), ...(gpu.use === "passthrough" ? [wholeName(gpu)] : [])];
const hasRoom = (gpu) => gpu.state === "free" || gpu.state === "part";
const tenantOf = (vm) => VMS[vm]?.tenant || NOBODY;
const jobText = (job) => [job.id, job.name, job.user, job.tenant].filter(Boolean).join(" ");

/* Colours go to the profiles (tenants) that are used most; what is beyond eight shares grey. */
const palette = (names) => new Map(names.map((name, at) => [name, at < 8 ? `c${at}` : "cx"]));
const counted = (names) => {
  const counts = new Map();
  names.forEach((name) => counts.set(name, (counts.get(name) || 0) + 1));
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
};
const PROFILES = [...CAPACITY].sort((a, b) => b.used - a.used || (a.profile < b.profile ? -1 : 1)).map((row) => row.profile);
const TENANTS = counted(VMS.map((vm) => vm.tenant || NOBODY)).filter((name) => name !== NOBODY);
const COLOURS = { profile: palette(PROFILES), tenant: palette(TENANTS) };
const colourOf = (profile, vm) => (state.colour === "tenant" ? COLOURS.tenant.get(tenantOf(vm)) || "cn" : COLOURS.profile.get(profile) || "cx");

/* ---- the filter --------------------------------------------------------------------------------------------- */

const hay = (gpu) => [gpu.address, gpu.model, ...vmsOf(gpu).map(vmHay)].join(" ").toLowerCase();
const vmHay = (vm) => [VMS[vm].name, VMS[vm].tenant, ...(VMS[vm].jobs || []).map((job) => jobText(JOBS[job]))].filter(Boolean).join(" ");
const troubled = new Set(POINTS.map((point) => point.object));

const HOSTS = CLUSTERS.flatMap((cluster, c) => (cluster.hosts || []).map((host, h) => ({
  host, cluster, key: `h${c}.${h}`, parent: `c${c}`, gpus: host.gpus || [], idle: host.idle || [],
  name: host.name.toLowerCase(), hays: null,
})));

const textFits = (tokens, host, text) => tokens.every((token) => host.name.includes(token) || text.includes(token));

const gpuFits = (gpu, host) => {
  if (state.model && gpu.model !== state.model) return false;
  if (state.profile && !profilesOn(gpu).includes(state.profile) && !(ROOMS[gpu.room || 0]?.[state.profile])) return false;
  if (state.tenant && !vmsOf(gpu).some((vm) => tenantOf(vm) === state.tenant)) return false;
  switch (state.state) {
    case "": return true;
    case "room": return hasRoom(gpu) && host.host.state === "in service";
    case "away": return host.host.state !== "in service";
    case "asleep": return (gpu.vms || []).some((vm) => VMS[vm].power !== "poweredOn");
    case "findings": return troubled.has(host.host.name) || vmsOf(gpu).some((vm) => troubled.has(VMS[vm].name));
    default: return gpu.state === state.state;
  }
};
const idleFits = (vm) => !state.model && (!state.profile || VMS[vm].gpus.includes(state.profile))
  && (!state.tenant || tenantOf(vm) === state.tenant)
  && (!state.state || state.state === "asleep" || (state.state === "findings" && troubled.has(VMS[vm].name)));

let shown = new Map();
const filter = () => {
  const tokens = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  shown = new Map();
  for (const entry of HOSTS) {
    if (state.cluster && `cluster ${entry.cluster.name || ""}` !== state.cluster) continue;
    entry.hays ??= { gpus: entry.gpus.map(hay), idle: entry.idle.map((vm) => vmHay(vm).toLowerCase()) };
    const gpus = entry.gpus.map((gpu, at) => gpuFits(gpu, entry) && textFits(tokens, entry, entry.hays.gpus[at]));
    const idle = entry.idle.map((vm, at) => idleFits(vm) && textFits(tokens, entry, entry.hays.idle[at]));
    const bare = !entry.gpus.length && !entry.idle.length && !state.model && !state.profile && !state.tenant
      && (!state.state || (state.state === "away" && entry.host.state !== "in service")) && textFits(tokens, entry, "");
    if (gpus.includes(true) || idle.includes(true) || bare) shown.set(entry, { gpus, idle });
  }
};
const filtered = () => Boolean(state.q.trim() || state.cluster || state.model || state.profile || state.state || state.tenant);

/* ---- nodes of the tree -------------------------------------------------------------------------------------- */

const tree = new Tree($("tree"));
const badge = (text, kind) => el("span", { class: `badge ${kind}`, text });
const findingsBadge = (count) => (count ? badge(plural(count, "finding"), "warn") : null);

const badges = (entry) => {
  const { host } = entry;
  const made = [];
  if (host.state !== "in service") made.push(badge(host.state, host.state === "maintenance" ? "calm" : "bad"));
  if (host.reboot) made.push(badge("reboot", "warn"));
  const count = [...entry.gpus.flatMap(vmsOf), ...entry.idle].reduce((sum, vm) => sum + (VMS[vm].findings || 0), 0);
  if (count) made.push(findingsBadge(count));
  return made;
};

const piece = (gpu, from, size, kind, text, title) => {
  const made = el("span", { class: `piece ${kind}`, title });
  const whole = gpu.gb || 1;
  made.style.left = `${(100 * from) / whole}%`;
  made.style.width = `${(100 * size) / whole}%`;
  if (text) made.append(el("span", { text }));
  return made;
};

/* One GPU as a strip of its memory. */
const strip = (gpu, faded) => {
  const box = el("span", { class: `gpu-strip s-${gpu.state}${faded ? " faded" : ""}` });
  if (gpu.use === "passthrough") {
    const vm = (gpu.vms || []).find((one) => VMS[one].power === "poweredOn") ?? (gpu.vms || [])[0];
    const name = vm === undefined ? "" : VMS[vm].name;
    const off = vm !== undefined && VMS[vm].power !== "poweredOn";
    const kind = vm === undefined ? (gpu.state === "free" ? "open" : "off-limits") : `${colourOf(wholeName(gpu), vm)}${off ? " asleep" : ""}`;
    box.append(piece(gpu, 0, gpu.gb || 1, kind, name, `${gpu.address} ${gpu.model}, passthrough, ${name || GPU_STATES[gpu.state]}${off ? `, ${POWER[VMS[vm].power]}` : ""}`));
    return box;
  }
  if (gpu.use === "none") box.append(piece(gpu, 0, gpu.gb || 1, "off-limits", "", `${gpu.address} ${gpu.model}, not set up`));
  (gpu.slots || []).forEach((slot) => {
    const name = slot.vm === undefined ? "not readable" : VMS[slot.vm].name;
    box.append(piece(gpu, slot.at, slot.gb, colourOf(slot.profile || "", slot.vm), name,
      `${gpu.address} ${gpu.model}: ${slot.profile || "vGPU"} at ${slot.at} GB, ${name}`));
  });
  (gpu.open || []).forEach(([from, size]) => box.append(piece(gpu, from, size, "open", "", `${gpu.address} ${gpu.model}: ${size} GB free`)));
  return box;
};

const roomText = (gpu) => {
  const room = Object.entries(ROOMS[gpu.room || 0] || {});
  if (!room.length) return "";
  const sizes = new Map();
  room.forEach(([profile, count]) => {
    const short = plain(profile).split("-").slice(1).join("-").replace(/[a-z]+$/i, "");
    sizes.set(short, Math.max(sizes.get(short) || 0, count));
  });
  return `room for ${[...sizes].sort((a, b) => parseFloat(b[0]) - parseFloat(a[0])).map(([size, count]) => `${count} x ${size}`).join(" or ")} GB`;
};

const jobNode = (job, key) => ({
  kind: "job", key,
  label: () => `job ${jobText(JOBS[job])}, ${JOBS[job].state}`,
  draw: (row) => {
    const one = JOBS[job];
    row.append(el("span", { class: "name", text: `job ${one.id}` }), el("span", { class: "grow", text: one.name || "" }),
      el("span", { class: "dim", text: [one.user, one.tenant && `(${one.tenant})`].filter(Boolean).join(" ") }),
      el("span", { class: "dim", text: one.gpus ? plural(one.gpus, "GPU") : "" }), badge(one.state, one.state === "running" ? "good" : "calm"),
      el("span", { class: "dim wide", text: one.since ? `since ${one.since}` : "" }));
  },
});

const vmNode = (vm, profile, where, key) => {
  const jobs = VMS[vm]?.jobs || [];
  const name = vm === undefined ? "a machine that the account may not read" : VMS[vm].name;
  const power = vm === undefined ? "" : POWER[VMS[vm].power] || VMS[vm].power;
  return {
    kind: "slot", key,
    children: jobs.length ? () => jobs.map((job, at) => jobNode(job, `${key}.${at}`)) : undefined,
    label: () => [plain(profile), where, name, power, VMS[vm]?.tenant, jobs.length ? plural(jobs.length, "job") : ""].filter(Boolean).join(", "),
    draw: (row) => row.append(el("i", { "class": `swatch ${colourOf(profile, vm)}${power === "on" ? "" : " asleep"}` }),
      el("span", { class: "name", text: name }), el("span", { class: "profile", text: plain(profile) }), el("span", { class: "dim wide", text: where }),
      badge(power, power === "on" ? "good" : "calm"), findingsBadge(VMS[vm]?.findings) || "",
      el("span", { class: "grow dim", text: VMS[vm]?.tenant || "" }), el("span", { class: "dim", text: jobs.length ? plural(jobs.length, "job") : "" })),
  };
};

const openNode = (from, size, key) => ({
  kind: "slot free", key, label: () => `free, ${from} to ${from + size} GB`,
  draw: (row) => row.append(el("i", { class: "swatch open" }), el("span", { class: "name dim", text: "free" }), el("span", { class: "dim", text: `${from}-${from + size} GB` })),
});

const gpuNode = (entry, gpu, at) => {
  const key = `g${entry.key.slice(1)}.${at}`;
  const children = () => [
    ...(gpu.vms || []).map((vm, n) => vmNode(vm, wholeName(gpu), "", `v${key}.${n}`)),
    ...[...(gpu.slots || []).map((slot) => ({ from: slot.at, slot })), ...(gpu.open || []).map(([from, size]) => ({ from, size }))]
      .sort((a, b) => a.from - b.from)
      .map(({ from, size, slot }, n) => (slot
        ? vmNode(slot.vm, slot.profile || "", `${slot.at}-${slot.at + slot.gb} GB`, `s${key}.${n}`)
        : openNode(from, size, `f${key}.${n}`))),
  ];
  const leaf = !(gpu.vms || []).length && !(gpu.slots || []).length;
  return {
    kind: "gpu", key, children: leaf ? undefined : children,
    label: () => [gpu.address, gpu.model, GPU_STATES[gpu.state], gpu.mode, roomText(gpu)].filter(Boolean).join(", "),
    draw: (row) => row.append(el("span", { class: "name mono", text: gpu.address }), el("span", { class: "model", text: gpu.model }),
      el("span", { class: "what" }, badge(GPU_STATES[gpu.state], { free: "good", part: "good", reboot: "warn" }[gpu.state] || "calm")),
      el("span", { "class": "strip one", "aria-hidden": "true" }, strip(gpu, false)),
      el("span", { class: "dim room wide", text: gpu.use === "vgpu" ? roomText(gpu) || "" : gpu.use === "passthrough" ? "passthrough" : "" })),
  };
};

const WIDEST = Math.max(1, ...HOSTS.map((entry) => entry.gpus.length));
const hostNode = (entry) => {
  const { host, gpus, idle, key } = entry;
  const seen = () => shown.get(entry);
  const free = () => gpus.filter((gpu) => hasRoom(gpu) && host.state === "in service").length;
  return {
    kind: `host${host.state === "in service" ? "" : " away"}`, key,
    children: gpus.length || idle.length ? () => [
      ...gpus.flatMap((gpu, at) => (seen().gpus[at] ? [gpuNode(entry, gpu, at)] : [])),
      ...idle.flatMap((vm, at) => (seen().idle[at] ? [vmNode(vm, VMS[vm].gpus[0] || "", "on no GPU", `i${key}.${at}`)] : [])),
    ] : undefined,
    label: () => [host.name, host.state, host.reboot ? "needs a reboot" : "", plural(gpus.length, "GPU"), `${free()} with room`,
      idle.length ? `${plural(idle.length, "machine")} on no GPU` : ""].filter(Boolean).join(", "),
    draw: (row) => {
      const strips = el("span", { "class": "strip", "aria-hidden": "true" }, ...gpus.map((gpu, at) => strip(gpu, !seen().gpus[at])));
      strips.style.setProperty("--n", WIDEST);
      row.append(el("span", { class: "name", text: host.name }), el("span", { class: "badges" }, ...badges(entry)), strips,
        el("span", { "class": "figures", "aria-hidden": "true", "title": "GPUs with room / GPUs", "text": gpus.length ? `${free()}/${gpus.length}` : "no GPU" }),
        el("span", { "class": "figures idle", "aria-hidden": "true", "text": idle.length ? `+${idle.length} asleep` : "" }));
    },
  };
};

const clusterNode = (cluster, c) => {
  const entries = HOSTS.filter((entry) => entry.parent === `c${c}`);
  const inSight = () => entries.filter((entry) => shown.has(entry));
  const name = cluster.name || "hosts in no cluster";
  const figures = () => {
    const gpus = inSight().flatMap((entry) => entry.gpus.filter((_gpu, at) => shown.get(entry).gpus[at]).map((gpu) => hasRoom(gpu) && entry.host.state === "in service"));
    return [plural(inSight().length, "host"), `${gpus.filter(Boolean).length} of ${plural(gpus.length, "GPU")} with room`];
  };
  return {
    kind: "cluster", key: `c${c}`, children: () => inSight().map(hostNode),
    label: () => [name, ...figures()].join(", "),
    draw: (row) => row.append(el("span", { class: "name", text: name }), el("span", { class: "dim grow", text: figures().join(", ") })),
    some: () => inSight().length > 0,
  };
};
const clusterNodes = CLUSTERS.map(clusterNode);
tree.roots = () => clusterNodes.filter((node) => node.some());

/* ---- head, legend, status ----------------------------------------------------------------------------------- */

const meter = (part, whole) => {
  const bar = el("span", { "class": "meter", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.width = `${whole ? Math.min(100, (100 * part) / whole) : 0}%`;
  return bar;
};

const number = (value) => value.toLocaleString("en");
const tiles = () => {
  const total = DATA.totals;
  const by = total.gpus_by_state || {};
  const withRoom = HOSTS.filter((entry) => entry.host.state === "in service").reduce((sum, entry) => sum + entry.gpus.filter(hasRoom).length, 0);
  const tile = (id, figure, name, note, bar) => el("li", { id }, el("b", { text: figure }), el("span", { text: name }), bar || null, el("small", { text: note || "" }));
  $("tiles").append(
    tile("t-gpus", `${number(withRoom)} / ${number(total.gpus)}`, "GPUs with room", `${by.full || 0} full${by.unset ? `, ${by.unset} not set up` : ""}`, meter(total.gpus - withRoom, total.gpus)),
    tile("t-memory", `${total.gb ? Math.round((100 * total.gb_used) / total.gb) : 0} %`, "memory given out", `${gigabytes(total.gb_used)} of ${gigabytes(total.gb)}`, meter(total.gb_used, total.gb)),
    tile("t-vgpus", number(total.vgpus), "vGPUs in use"),
    tile("t-vms", `${number(total.vms_running)} / ${number(total.vms)}`, "machines running", total.vms_suspended ? `${total.vms_suspended} suspended` : ""),
    tile("t-hosts", `${number(total.hosts_in_service)} / ${number(total.hosts)}`, "hosts in service", total.reboots ? `${plural(total.reboots, "host")} to reboot` : "no reboot pending"),
    ...(DATA.jobs ? [tile("t-jobs", number(total.jobs_running), "jobs running", `${total.jobs_waiting} waiting`)] : []),
    tile("t-points", String(POINTS.length), POINTS.length === 1 ? "point to look at" : "points to look at", DATA.doctor ? "" : "the doctor was not asked"),
  );
  if (POINTS.length) $("t-points").classList.add("warn");
};

const age = () => {
  const made = new Date(document.querySelector('meta[name="gpuops-generated"]').content);
  const minutes = Math.max(0, Math.round((Date.now() - made) / 60000));
  const ago = minutes < 2 ? "just now" : minutes < 120 ? `${minutes} minutes ago` : minutes < 2880 ? `${Math.round(minutes / 60)} hours ago` : `${Math.round(minutes / 1440)} days ago`;
  const when = made.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });
  $("asof").textContent = `${DATA.source ? `${DATA.source}, ` : ""}${when} UTC (${ago})`;
  $("asof").classList.toggle("old", minutes > 1440);
};

const legend = () => {
  const names = state.colour === "tenant" ? [...TENANTS.slice(0, 8)] : PROFILES.filter((name) => CAPACITY.some((row) => row.profile === name && row.used)).slice(0, 8);
  const key = (kind, text) => el("li", {}, el("i", { "class": `swatch ${kind}` }), el("span", { text }));
  const grey = state.colour === "tenant" ? [key("cn", NOBODY), ...(TENANTS.length > 8 ? [key("cx", "other tenants")] : [])]
    : CAPACITY.some((row) => row.used && COLOURS.profile.get(row.profile) === "cx") ? [key("cx", "other profiles")] : [];
  $("legend").replaceChildren(...names.map((name) => key(COLOURS[state.colour].get(name), plain(name))), ...grey,
    key("open", "free"), key("asleep cn", "machine off"), key("off-limits", "not set up or waits for a reboot"));
};

const status = () => {
  const gpus = [...shown.values()].reduce((sum, entry) => sum + entry.gpus.filter(Boolean).length, 0);
  const idle = [...shown.values()].reduce((sum, entry) => sum + entry.idle.filter(Boolean).length, 0);
  const all = DATA.totals;
  const found = `${plural(shown.size, "host")}, ${plural(gpus, "GPU")}${idle ? `, ${plural(idle, "machine")} on no GPU` : ""}`;
  $("status").textContent = filtered() ? (shown.size ? `${found} of ${all.hosts} and ${all.gpus}` : "Nothing fits. Clear the filter to see everything.") : found;
};

const apply = () => {
  filter();
  status();
  legend();
  $("f-tenant").hidden = !TENANTS.length;
  $("colour").hidden = !TENANTS.length;
  tree.refresh();
  const kept = new URLSearchParams(Object.entries(state).filter(([name, value]) => value && !(name === "colour" && value === "profile")));
  try {
    history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname + location.search);
  } catch {
    // Some browsers refuse it for local files; the page works without.
  }
};

const toDepth = (depth) => {
  const reach = (nodes, level) => nodes.forEach((node) => {
    if (!node.children) return;
    if (level < depth) {
      tree.open.add(node.key);
      reach(node.children(), level + 1);
    } else tree.open.delete(node.key);
  });
  if (depth < 3) [...tree.open].filter((key) => key[0] !== "c").forEach((key) => tree.open.delete(key));
  reach(tree.roots(), 1);
  tree.refresh();
};

const goTo = (name) => {
  const find = () => {
    for (const entry of HOSTS) {
      if (entry.host.name === name) return [entry.parent, entry.key];
      for (const [at, gpu] of entry.gpus.entries()) {
        const n = (gpu.vms || []).findIndex((vm) => VMS[vm].name === name);
        const key = `g${entry.key.slice(1)}.${at}`;
        if (n >= 0) return [entry.parent, entry.key, key, `v${key}.${n}`];
        if ((gpu.slots || []).some((slot) => VMS[slot.vm]?.name === name)) return [entry.parent, entry.key, key];
      }
      const idle = entry.idle.findIndex((vm) => VMS[vm].name === name);
      if (idle >= 0) return [entry.parent, entry.key, `i${entry.key}.${idle}`];
    }
    return null;
  };
  const keys = find();
  if (!keys) return;
  $("filters").reset();
  Object.assign(state, { q: "", cluster: "", model: "", profile: "", state: "", tenant: "" });
  apply();
  tree.reveal(keys);
};

/* ---- panels ------------------------------------------------------------------------------------------------- */

const known = new Set([...HOSTS.map((entry) => entry.host.name), ...VMS.map((vm) => vm.name)]);
const panel = (id, title, ...content) => el("details", { "class": "panel", id, "open": true }, el("summary", {}, el("h2", { text: title })), ...content);
const object = (name) => (known.has(name) ? el("button", { type: "button", class: "link", text: name, onclick: () => goTo(name) }) : el("b", { text: name }));

const capacityPanel = () => {
  const row = (one) => {
    const head = el("th", { scope: "row" }, el("i", { "class": `swatch ${COLOURS.profile.get(one.profile) || "cx"}` }), el("span", { text: plain(one.profile) }));
    return el("tr", { "data-profile": one.profile }, head, el("td", { text: one.used }), el("td", { class: "free", text: one.free }), el("td", {}, meter(one.used, one.used + one.free)));
  };
  const used = CAPACITY.filter((one) => one.used || one.whole);
  const more = CAPACITY.filter((one) => !one.used && !one.whole);
  const table = (rows) => el("table", {}, el("thead", {}, el("tr", {}, ...["profile", "in use", "free"].map((text) => el("th", { scope: "col", text })), el("td"))), el("tbody", {}, ...rows.map(row)));
  const parts = used.length ? [table(used)] : [];
  if (more.length) parts.push(used.length ? el("details", {}, el("summary", { text: `${plural(more.length, "profile")} that nobody uses` }), table(more)) : table(more));
  return panel("p-capacity", "Free capacity by profile", ...parts,
    el("p", { class: "note", text: parts.length ? "Free: how many more could start now on hosts in service, of this profile alone." : "No GPU is divided or passed through yet." }));
};

const KINDS = { host: "host", reboot: "reboot", licence: "licence", driver: "driver", health: "health" };
const pointsPanel = () => {
  const entry = (point) => el("li", { "data-kind": point.kind }, badge(KINDS[point.kind], point.kind === "licence" || point.kind === "driver" ? "bad" : "warn"), object(point.object),
    el("span", { text: ` ${point.text}` }), point.mend ? el("small", { text: `To mend: ${point.mend}.` }) : null);
  const first = POINTS.slice(0, 50);
  return panel("p-points", `To look at (${POINTS.length})`, POINTS.length ? el("ul", { class: "points" }, ...first.map(entry)) : el("p", { class: "note", text: "Nothing." }),
    POINTS.length > first.length ? el("p", { class: "note", text: `and ${POINTS.length - first.length} more` }) : null);
};

const jobsPanel = () => {
  const rest = JOBS.filter((job) => job.state !== "running" || !(job.vms || []).some((name) => known.has(name)));
  if (!rest.length) return null;
  return panel("p-jobs", `Jobs that run on no machine shown (${rest.length})`, el("ul", { class: "points" }, ...rest.slice(0, 50).map((job) => el("li", {},
    badge(job.state, "calm"), el("b", { text: job.id }), el("span", { text: ` ${[job.name, job.user, job.tenant && `(${job.tenant})`, job.gpus ? plural(job.gpus, "GPU") : ""].filter(Boolean).join(" ")}` })))));
};

const planPanel = () => {
  const { plan } = DATA;
  const notes = [...(plan.problems || []).map((text) => ["in the way", "bad", text]), ...(plan.warnings || []).map((text) => ["warning", "warn", text])];
  const steps = (plan.steps || []).map((step) => el("li", {}, badge(step.action, step.action === "remove" || step.action === "drain" ? "warn" : "good"), object(step.object),
    el("span", { text: ` ${step.what || ""}` }), el("small", { text: [step.reason, step.needs && `needs ${step.needs.join(", ")}`, step.jobs && `jobs ${step.jobs.join(", ")}`].filter(Boolean).join("; ") })));
  const names = (list, other) => el("td", {}, ...(list || []).flatMap((name) => [el("span", { "class": (other || []).includes(name) ? "same" : "differs", "text": name }), " "]));
  const rows = (plan.moves || []).map((move) => el("tr", {}, el("th", { scope: "row" }, move.host ? object(move.host) : el("b", { text: "no host" })), names(move.before, move.after), names(move.after, move.before)));
  return panel("p-plan", "Plan", notes.length ? el("ul", { class: "points" }, ...notes.map(([what, kind, text]) => el("li", {}, badge(what, kind), el("span", { text: ` ${text}` })))) : null,
    steps.length ? el("ol", { class: "points" }, ...steps) : el("p", { class: "note", text: "Nothing to do." }),
    rows.length ? el("div", { "class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Machines before and after" }, el("table", { class: "moves" },
      el("thead", {}, el("tr", {}, ...["host", "before", "after"].map((text) => el("th", { scope: "col", text })))), el("tbody", {}, ...rows))) : null);
};

const panels = () => {
  const made = [capacityPanel(), pointsPanel()];
  if (DATA.harvest) made.push(panel("p-harvest", "The harvesting day", ...DATA.harvest.map(Charts.draw)));
  if (DATA.benchmark) made.push(panel("p-benchmark", "Sharing a GPU", ...DATA.benchmark.map(Charts.draw)));
  if (DATA.plan) made.push(planPanel());
  made.push(jobsPanel());
  $("panels").append(...made.filter(Boolean));
  if (matchMedia("(max-width: 60rem)").matches) document.querySelectorAll("details.panel").forEach((one) => { one.open = one.id === "p-capacity"; });
};

/* ---- controls ----------------------------------------------------------------------------------------------- */

const options = (id, all, values) => $(id).append(el("option", { value: "", text: all }), ...values.map(([value, text]) => el("option", { value, text })));
const FILTERS = { cluster: "f-cluster", model: "f-model", profile: "f-profile", state: "f-state", tenant: "f-tenant" };

const controls = () => {
  const unique = (list) => [...new Set(list)].sort();
  options("f-cluster", "all clusters", CLUSTERS.map((cluster) => [`cluster ${cluster.name || ""}`, cluster.name || "no cluster"]));
  options("f-model", "all models", unique(HOSTS.flatMap((entry) => entry.gpus.map((gpu) => gpu.model))).map((name) => [name, name]));
  options("f-profile", "all profiles", CAPACITY.map((row) => [row.profile, plain(row.profile)]));
  options("f-state", "all states", Object.entries(STATES));
  options("f-tenant", "all tenants", [...TENANTS, NOBODY].map((name) => [name, name]));
  const given = new URLSearchParams(location.hash.slice(1));
  Object.keys(state).forEach((name) => { state[name] = given.get(name) ?? state[name]; });
  $("q").value = state.q;
  Object.entries(FILTERS).forEach(([name, id]) => {
    $(id).value = state[name];
    if ($(id).selectedIndex < 0) {
      $(id).value = "";
      state[name] = "";
    }
    $(id).addEventListener("change", () => { state[name] = $(id).value; apply(); });
  });
  if (state.colour !== "tenant" || !TENANTS.length) state.colour = "profile";
  document.querySelectorAll('input[name="colour"]').forEach((input) => {
    input.checked = input.value === state.colour;
    input.addEventListener("change", () => { state.colour = input.value; apply(); });
  });
  $("q").addEventListener("input", () => { state.q = $("q").value; apply(); });
  $("filters").addEventListener("submit", (event) => { event.preventDefault(); tree.element.focus(); });
  $("filters").addEventListener("reset", () => {
    Object.assign(state, { q: "", cluster: "", model: "", profile: "", state: "", tenant: "" });
    setTimeout(apply);
  });
  $("depth").addEventListener("click", (event) => { if (event.target.dataset.depth) toDepth(Number(event.target.dataset.depth)); });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      $("q").focus();
    }
  });
};

tree.element.classList.toggle("idle", HOSTS.some((entry) => entry.idle.length));
controls();
tiles();
age();
setInterval(age, 60000);
panels();
filter();
clusterNodes.forEach((node) => tree.open.add(node.key));
if (DATA.totals.gpus <= 8) HOSTS.forEach((entry) => tree.open.add(entry.key));
apply();
