"""Where JOBREC_NO_SKIPS=1, a test that would be skipped fails: CI leaves nothing out."""

import os

import pytest


def _failed_if_skipped(report):
  skipped = report.skipped and not hasattr(report, 'wasxfail')
  if skipped and os.environ.get('JOBREC_NO_SKIPS') == '1':
    *_, reason = report.longrepr
    report.outcome = 'failed'
    report.longrepr = f'{report.nodeid} must run where JOBREC_NO_SKIPS=1, got: {reason}'
  return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
  return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
  return _failed_if_skipped((yield))
