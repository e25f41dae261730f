"""A real browser for tests of pages: headless Chromium or Chrome, where there is one."""

import json
import os
from pathlib import Path
import select
import shutil
import subprocess
import time

import pytest

BROWSER = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)


# What does not fit the window: elements, letters of figures, and cells of tables that do not show.
MISFITS = """(() => {
  const wide = [...document.querySelectorAll('body *')].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width && !e.closest('.hidden, thead') && (r.right > innerWidth + 0.5 || r.left < 0);
  });
  const cut = [...document.querySelectorAll('svg text')].filter(e => {
    const r = e.getBoundingClientRect(), s = e.closest('svg').getBoundingClientRect();
    return r.width && (r.right > s.right + 3 || r.left < s.left - 3 || r.bottom > s.bottom + 3);
  });
  const unseen = [...document.querySelectorAll('td')].filter(e => e.textContent.trim()
      && !e.closest('.static') && !e.getBoundingClientRect().width);
  const page = document.documentElement.scrollWidth > innerWidth ? ['the page itself'] : [];
  return JSON.stringify([...page, ...[...wide, ...cut, ...unseen].map(
      e => e.tagName + ' ' + e.textContent.trim().slice(0, 60))]);
})()"""


class Chromium:
  """A headless browser driven over its debugging pipe: messages of JSON, each ended by a zero."""

  def __init__(self, profile: Path):
    ours, theirs = os.pipe(), os.pipe()
    # It reads from 3 and writes to 4. A shell lays them there: a fork that runs Python first may
    # hang where JAX has threads.
    lay = f'exec "$@" 3</dev/fd/{ours[0]} 4>/dev/fd/{theirs[1]}'
    command = ['sh', '-c', lay, 'sh',
               BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--disable-sync',
               '--disable-background-networking', '--disable-component-update', '--no-first-run',
               '--disable-dev-shm-usage', f'--user-data-dir={profile}', '--window-size=1200,900',
               '--remote-debugging-pipe']
    self._process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=(ours[0], theirs[1]))
    os.close(ours[0])
    os.close(theirs[1])
    self._write, self._read = ours[1], theirs[0]
    self._profile = profile
    self._buffer, self._count, self._session, self.events = b'', 0, None, []

  def __enter__(self):
    return self

  def __exit__(self, *_):
    try:
      self._session = None
      self.call('Browser.close')
      self._process.wait(20)
    finally:
      self._process.kill()
      self._process.wait()
      os.close(self._write)
      os.close(self._read)

  def _message(self) -> dict:
    end = time.monotonic() + 30
    while b'\0' not in self._buffer:
      ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
      assert ready, 'the browser does not answer'
      self._buffer += os.read(self._read, 1 << 16) or pytest.fail('the browser is gone')
    text, self._buffer = self._buffer.split(b'\0', 1)
    return json.loads(text)

  def call(self, method: str, **params) -> dict:
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._write, json.dumps(message).encode() + b'\0')
    while (answer := self._message()).get('id') != self._count:
      self.events.append(answer)
    assert 'error' not in answer, answer
    return answer['result']

  def wait_for(self, method: str) -> dict:
    while not (found := [e for e in self.events if e.get('method') == method]):
      self.events.append(self._message())
    self.events = [e for e in self.events if e.get('method') != method]
    return found[-1]['params']

  def open(self, path: Path) -> None:
    if self._session is None:
      target = self.call('Target.createTarget', url='about:blank')['targetId']
      self._session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
      for domain in ('Page', 'Runtime', 'Network', 'DOM'):
        self.call(f'{domain}.enable')
    self.call('Page.navigate', url=path.as_uri())
    self.wait_for('Page.loadEventFired')

  def js(self, expression: str):
    result = self.call('Runtime.evaluate', expression=expression, returnByValue=True,
                       awaitPromise=True)
    assert 'exceptionDetails' not in result, result
    return result['result'].get('value')

  def show(self, path: Path, width: int, scheme: str) -> list[str]:
    """Opens a page in a window of a width, 'light' or 'dark'; what does not fit it."""
    self.call('Emulation.setDeviceMetricsOverride', width=width, height=900,
              deviceScaleFactor=1, mobile=width < 500)
    self.call('Emulation.setEmulatedMedia',
              features=[{'name': 'prefers-color-scheme', 'value': scheme}])
    self.open(path)
    return json.loads(self.js(MISFITS))

  def complaints(self) -> list[dict]:
    """What the console was told; needs Log to be enabled before."""
    return [e for e in self.events if e.get('method') in (
        'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded')]

  def text(self, element: str) -> str:
    return self.js(f'document.getElementById("{element}").innerText')

  def press(self, *keys: str) -> None:
    for key in keys:
      text = {'text': key} if len(key) == 1 else {}
      self.call('Input.dispatchKeyEvent', type='keyDown', key=key, **text)
      self.call('Input.dispatchKeyEvent', type='keyUp', key=key)

  def click(self, element: str) -> None:
    x, y = self.js(f'(r => [r.x + r.width / 2, r.y + r.height / 2])'
                   f'(document.getElementById("{element}").getBoundingClientRect())')
    for kind in ('mousePressed', 'mouseReleased'):
      self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

  def choose_file(self, path: Path) -> None:
    document = self.call('DOM.getDocument')['root']['nodeId']
    node = self.call('DOM.querySelector', nodeId=document, selector='#file')['nodeId']
    self.call('DOM.setFileInputFiles', nodeId=node, files=[str(path)])

  def leave(self, text: str) -> None:
    """Leaves the page, and waits until what it stored, which has a text, lies on the disk.

    Chromium writes its local storage seconds after the page did, or when the page is left, and
    one that ends before loses it. People take longer than a program to close a browser.
    """
    self.call('Page.navigate', url='about:blank')
    folder, end = self._profile / 'Default' / 'Local Storage' / 'leveldb', time.monotonic() + 60
    while not any(text.encode() in p.read_bytes() for p in folder.glob('*.log')):
      assert time.monotonic() < end, f'{folder}: {text} was never written'
      time.sleep(0.05)

  def until(self, condition: str) -> None:
    end = time.monotonic() + 20
    while not self.js(condition):
      assert time.monotonic() < end, condition
      time.sleep(0.05)
