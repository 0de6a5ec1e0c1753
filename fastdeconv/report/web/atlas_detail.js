// One feature of an atlas in detail: its excerpts, how often it fires, what they share.
// Takes page, quantity, element, frameAround; features, percent, compact, valueOf, clock, markOf, believed;
// player; makePanel; cards. Gives: detail.

const detail = (() => {
  const get = (id) => document.getElementById(id);
  const axes = get("axes");
  let feature = null;

  const link = (other) => element("a", { href: other.hash, textContent: other.name });
  const listed = (others) => others.flatMap((other, i) => [i ? ", " : "", link(other)]);

  // ---- excerpts ----

  function picture(one, which, i) {
    const shown = element("button", { className: "play picture" },
      element("img", { src: `${one.file}_${which}.png`, alt: "", loading: "lazy" }),
      axes.content.cloneNode(true));
    shown.querySelector(".axes").append(frameAround(one.field));
    shown.dataset.excerpt = i;
    shown.dataset.which = which;
    shown.setAttribute("aria-label", which === "heard" ? `Play what ${feature.name} hears in excerpt ${i + 1}` : `Play the original of excerpt ${i + 1}`);
    return shown;
  }

  function excerpt(one, i) {
    const song = element("button", { className: "song", textContent: page.tracks[one.track], title: "Search for this song" });
    song.addEventListener("click", () => {
      close();
      controls.search(page.tracks[one.track]);
    });
    return element("li", {},
      element("div", { className: "pair" }, picture(one, "heard", i), picture(one, "original", i)),
      element("p", { className: "key" }, `${i + 1}. `, song,
        ` ${clock(one.at)} · ${one.seconds.toFixed(1)} s · activation ${compact(one.score)}`,
        one.label ? ` · ${one.label}` : ""),
      ...(one.verdict ? [element("p", { className: "key told" },
        markOf(one.verdict),
        ` to be believed: ${one.verdict} (${one.reason})`)] : []));
  }

  function play(i, which) {
    const same = player.playing?.feature === feature && player.playing.excerpt === i;
    const wanted = which === "original";
    if (!same || player.paused || player.hearsOriginal === wanted) cards.playOrPause(feature, i);
    // Both sounds run together, so switching to the other keeps the place.
    if (player.hearsOriginal !== wanted) player.swap();
  }

  get("detail-excerpts").addEventListener("click", (event) => {
    const button = event.target.closest(".play");
    if (button) play(Number(button.dataset.excerpt), button.dataset.which);
  });

  // ---- how often it fires ----

  const SVG = "http://www.w3.org/2000/svg";

  function often() {
    const { histogram, levels, songs, excerpts } = feature;
    const bars = histogram?.counts ?? [];
    const most = Math.max(1, ...bars);
    get("histogram").replaceChildren(...bars.map((count, i) => {
      const bar = document.createElementNS(SVG, "rect");
      const height = 40 * (count / most);
      const place = { x: (100 * i) / bars.length, width: 92 / bars.length, y: 40 - height, height };
      for (const [key, value] of Object.entries(place)) bar.setAttribute(key, value.toFixed(2));
      return bar;
    }));
    get("histogram").toggleAttribute("hidden", !bars.length);
    const ends = bars.length ? [histogram.edges[0], histogram.edges[bars.length]] : [];
    get("histogram-ends").replaceChildren(...ends.map((edge, i) => element("i", { textContent: compact(edge), className: i ? "last" : "first" })));
    const [half, , hundredth, largest] = levels;
    const said = [`It fires in ${percent(feature.often)} of all windows${songs === null || songs === undefined ? "" : `, in ${percent(songs)} of all songs`}.`];
    if (feature.active !== null) said.push(`On average ${percent(feature.active)} of the values of its activation map are above 0.`);
    if (bars.length) {
      said.push(`Half of the windows stay below ${compact(half)}, one in a hundred exceeds ${compact(hundredth)}, the largest is ${compact(largest)}.`);
      said.push("Bars: how many windows have which largest activation, on a logarithmic axis; windows in which it is silent are left out.");
    }
    if (excerpts.length) said.push(`These excerpts: ${compact(excerpts.at(-1).score)} to ${compact(excerpts[0].score)}.`);
    get("detail-often-text").textContent = said.join(" ");
  }

  // ---- what the excerpts share ----

  function labels() {
    const count = feature.excerpts.length;
    const said = feature.labels.filter(([, n]) => n > 1).map(
      ([label, n, usual]) => `${label} ${n} of ${count} (features of this layer: ${usual} on average)`,
    );
    const classes = feature.classes.slice(0, 3).map(([name, n]) => `${name} ${n}`);
    const lines = [said.length ? `${said.join("; ")}.` : count ? "No two excerpts have the same label." : "There are no excerpts."];
    if (classes.length) lines.push(`The network's classes for the windows they are from: ${classes.join(", ")}.`);
    get("detail-labels").textContent = lines.join(" ");
  }

  function spread(values, i) {
    return [
      element("span", { textContent: quantity(values[0], i) }),
      element("small", { textContent: `${quantity(values[1], i)} to ${quantity(values[2], i)}` }),
    ];
  }

  function numbers() {
    const layer = page.layers[feature.layer].numbers;
    const rows = feature.numbers.map((own, i) => [own, i]).filter(([own, i]) => own && layer[i]);
    const far = ([own]) => Math.abs((own[3] ?? 0.5) - 0.5);
    rows.sort((a, b) => far(b) - far(a));
    get("detail-numbers-table").hidden = !rows.length;
    get("detail-numbers").replaceChildren(...rows.map(([own, i]) => element("tr",
      { title: page.numbers[i].meaning, className: far([own]) >= 0.4 ? "unusual" : "" },
      element("th", { scope: "row", textContent: page.numbers[i].name }),
      element("td", {}, ...spread(own, i)),
      element("td", {}, ...spread(layer[i], i)),
      element("td", { textContent: own[3] === undefined ? "–" : `${Math.round(100 * own[3])} %` }))));
  }

  // ---- tags and companions ----

  function tags() {
    if (!get("detail-tags")) return;
    const range = ({ low, high }) => (low === null ? "" : `${compact(low)} to ${compact(high)}`);
    get("detail-tags-table").hidden = !feature.tags.length;
    get("detail-tags").replaceChildren(...feature.tags.map((tag) => element("tr", { className: isSure(tag) ? "" : "unsure" },
      element("th", { scope: "row" }, page.attributes[tag.attribute].name,
        ...(tag.label ? [element("small", { textContent: tag.label })] : [])),
      element("td", {}, element("span", { textContent: valueOf(tag) }), element("small", { textContent: range(tag) })),
      element("td", {}, element("span", { textContent: tag.q === null ? "–" : tag.q < 0.001 ? "< 0.001" : tag.q.toFixed(3) }),
        element("small", { textContent: tag.control ? "untrained too" : tag.q === null || tag.q > page.least_q ? "may be chance" : "" })),
      element("td", { textContent: tag.excerpts ?? "–" }))));
    const control = page.control
      ? "“Untrained too”: in an untrained network a feature of this layer is related to the tag as strongly, so this says nothing about learning."
      : "No control was run: an untrained network may have features that are related to these tags as strongly.";
    get("detail-tags-text").textContent = feature.tags.length
      ? `Over tracks, the strongest first, with 95 % confidence intervals. ${control}`
      : "No tag could be compared with this feature.";
  }

  function together() {
    get("detail-together").hidden = !feature.together.length;
    get("detail-others").replaceChildren(...feature.together.flatMap(([index, r], i) => [
      i ? ", " : "", link(features[index]), ` ${r.toFixed(2)}`,
    ]));
  }

  function marks() {
    const head = feature.twin === null ? null : features[feature.twin];
    get("detail-marks").replaceChildren(
      ...(feature.silent ? ["It never fires: it is above 0 nowhere in the collection."] : []),
      ...(head ? ["Twin of ", link(head), ": they fire together, so one of them tells nothing new. "] : []),
      ...(feature.twins.length ? ["Twins: ", ...listed(feature.twins), "."] : []),
    );
  }

  function trusted() {
    const found = feature.believed;
    const count = found?.counts.reduce((sum, n) => sum + n, 0);
    const usual = found && [`of all features of the layer ${percent(found.usual)} are a “yes” in these windows`,
      found.control === null ? "there is no untrained network to compare with" : `of those of an untrained network ${percent(found.control)}`];
    get("detail-believed").textContent = !page.verdicts || !feature.excerpts.length ? ""
      : found ? `To be believed: ${believed(found)} of ${count} ${count === 1 ? "excerpt" : "excerpts"}; ${usual.join(", ")}.`
        : "Its excerpts were not judged.";
  }

  // ---- the panel ----

  function show() {
    get("detail-title").textContent = feature.name;
    get("detail-label").textContent = feature.label;
    marks();
    trusted();
    get("detail-excerpts").replaceChildren(...feature.excerpts.map(excerpt));
    get("detail-often").hidden = !feature.histogram;
    often();
    labels();
    numbers();
    tags();
    together();
  }

  const panel = makePanel(get("detail"));

  function close() {
    if (!feature) return;
    const last = feature;
    feature = null;
    panel.close();
    cards.choose(last);
  }

  get("detail").addEventListener("click", (event) => {
    const jump = event.target.closest("[data-jump]");
    if (jump) get(jump.dataset.jump).scrollIntoView({ block: "start" });
  });
  get("close").addEventListener("click", close);
  return {
    close,
    open(wanted, options) {
      if (feature !== wanted) get("detail").scrollTop = 0;
      feature = wanted;
      show();
      panel.open(wanted, options);
    },
    get feature() { return feature; },
    pictures: (i) => [...get("detail-excerpts").querySelectorAll(`[data-excerpt="${i}"]`)],
    /** Show another feature if one is shown. */
    follow(other) { if (feature && feature !== other) this.open(other, { focus: false }); },
  };
})();
