'use strict';
(() => {
  const at = id => document.getElementById(id);
  const data = JSON.parse(at('dial-data').textContent);
  const [box, slider, picker] = ['dial', 'dial-tau', 'dial-candidate'].map(at);
  const fixed = (x, digits = 3) => x.toFixed(digits).replace('-', '−');

  function make(tag, text = '', kind = '') {
    const element = document.createElement(tag);
    element.textContent = text;
    if (kind) element.className = kind;
    return element;
  }

  function record(about) {
    return about.flatMap(([label, words]) => [make('dt', label), make('dd', words)]);
  }

  function asked(k) {
    return k === 0 && data.asks_nothing ? 'nothing' : 'τ ' + fixed(data.taus[k]);
  }

  function moved(first, now) {
    if (first === now + 1) return 'place as with the least requirement';
    return first > now + 1 ? `▲ from place ${first}` : `▼ from place ${first}`;
  }

  function job(candidate, k, place) {
    const number = candidate.ranked[k][place], pair = candidate.pairs[number];
    const item = make('li', '', pair.first === place + 1 ? '' : 'moved');
    const line = make('div', '', 'job');
    line.append(make('b', `${place + 1}. ${data.jobs[number].id}`),
                make('span', k === 0 ? '' : moved(pair.first, place)),
                make('span', pair.applied ? 'applied to' : ''));
    const truth = data.known ? ` (truth ${fixed(pair.Q, 2)})` : '';
    const wanted = data.known ? ` · wanted in truth ${fixed(pair.P, 2)}` : '';
    const numbers = make('div', `eligible ${fixed(pair.p_qual, 2)}${truth}${wanted} · s_pref ` +
        `${fixed(pair.s_pref, 2)} · eligibility adds ${fixed(candidate.lift[k][place], 2)}`, 'numbers');
    const reasons = make('ul', '', 'reasons');
    reasons.setAttribute('aria-label', 'Reasons');
    reasons.append(...pair.reasons.map(([words, verdict]) => make('li', words, verdict)));
    const more = make('details');
    const list = make('dl');
    list.append(...record(data.jobs[number].about));
    more.append(make('summary', 'The job\'s record'), list);
    item.append(line, numbers, reasons, more);
    return item;
  }

  function row(words, mine, all) {
    const line = make('tr');
    const name = make('th', words);
    name.scope = 'row';
    line.append(name, make('td', mine), make('td', all));
    return line;
  }

  function draw() {
    const k = Number(slider.value), candidate = data.candidates[picker.value];
    const open = [...at('dial-jobs').querySelectorAll('details')].some(d => d.open);
    at('dial-value').textContent = asked(k);
    slider.setAttribute('aria-valuetext', asked(k));
    at('dial-jobs').replaceChildren(...candidate.ranked[k].map((_, i) => job(candidate, k, i)));
    if (open) at('dial-jobs').querySelectorAll('details').forEach(d => { d.open = true; });
    const rows = data.measures.map(([key, words]) => row(
        words, fixed(candidate.measures[key][k]), fixed(data.all[key][k])));
    const cost = of => fixed(of[data.cost][0] - of[data.cost][k]);
    rows.push(row('cost in preference against the least requirement', cost(candidate.measures),
                  cost(data.all)));
    at('dial-numbers').replaceChildren(...rows);
    const truth = data.known ? `, in truth ${fixed(data.all['true C'][k])}` : '';
    at('dial-says').textContent = `Asked for ${asked(k)}: over all lists C is ` +
        `${fixed(data.all.C[k])}${truth}; it costs ${cost(data.all)} in preference.`;
    at('dial-about').replaceChildren(...record(candidate.about));
  }

  slider.addEventListener('input', draw);
  picker.addEventListener('change', draw);
  box.addEventListener('keydown', event => {
    const step = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity}[event.key];
    if (!step || event.target === slider || event.target === picker || event.altKey ||
        event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    slider.value = String(Math.max(0, Math.min(Number(slider.max), Number(slider.value) + step)));
    draw();
  });
  box.tabIndex = 0;
  box.classList.add('live');
  draw();
})();
