"""The web page in a real browser: Chromium, without a window. CI runs these tests, `make test` does not.

    apt-get install chromium chromium-driver
    .venv/bin/pip install -r .ci/browser.txt
    BROWSER=1 .venv/bin/python -m pytest tests/browser
    .venv/bin/python -m tests.browser.shots --to /tmp/shots     # pictures of every page, to look at
    .venv/bin/python -m tests.browser.busy 127.0.0.1:5672 127.0.0.1:15672     # make a broker busy, until Ctrl-C
"""
