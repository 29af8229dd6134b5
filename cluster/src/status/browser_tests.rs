//! The page in a real browser. Skipped, with a printed reason, where there is none.
//!
//! With `FUTUREPOOL_SCREENSHOTS=<folder>` the tests write pictures of what they see.

use std::io::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::json;
use tokio::sync::oneshot;

use crate::status::page::{Page, Source};
use crate::status::samples;
use crate::status::snapshot::{Point, Snapshot};
use crate::status::text::printable;
use crate::status::webdriver::Browser;

/// Serves whatever snapshot a test puts into it. Dropping it ends the server.
struct Served {
    snapshot: Arc<Mutex<Snapshot>>,
    url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shown(Arc<Mutex<Snapshot>>);

impl Source for Shown {
    fn snapshot(&self) -> Snapshot {
        self.0.lock().unwrap().clone()
    }

    fn history(&self) -> Vec<Point> {
        samples::history()
    }
}

impl Served {
    fn start(snapshot: Snapshot) -> Self {
        let snapshot = Arc::new(Mutex::new(snapshot));
        let page = Page::bind("127.0.0.1:0", None).unwrap();
        let url = format!("http://{}/", page.address());
        let (stop, stopped) = oneshot::channel();
        let shown = Arc::clone(&snapshot);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    ended = page.serve(Rc::new(Shown(shown))) => match ended.unwrap() {},
                }
            });
        });
        Self {
            snapshot,
            url,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn show(&self, snapshot: Snapshot) {
        *self.snapshot.lock().unwrap() = snapshot;
    }

    fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.take();
    }
}

macro_rules! browser_or_return {
    () => {
        match Browser::start() {
            Ok(browser) => browser,
            Err(reason) => {
                // Not a macro: its output would be hidden as that of a test that passes.
                let _ = writeln!(std::io::stderr(), "skipped: {reason}");
                return;
            }
        }
    };
}

#[test]
fn the_page_shows_what_happens_and_what_is_wrong() {
    let browser = browser_or_return!();
    let mut served = Served::start(samples::idle());
    browser.look(1200, 900, false);
    browser.open(&served.url);
    browser.wait("document.querySelectorAll('#lanes > li').length === 2");
    assert_eq!(browser.run("return document.title"), json!("shop: 0 jobs"));
    assert_eq!(
        browser.run("return document.getElementById('banner').hidden"),
        json!(true)
    );
    assert_eq!(
        browser.run("return document.getElementById('attention').hidden"),
        json!(true)
    );
    browser.screenshot("idle-light");

    // An element keeps its place while its figures change: a focus or a selection stays.
    browser.run("window.kept = document.querySelector('#lanes > li h3')");
    served.show(samples::busy());
    browser.wait("document.querySelectorAll('#lanes > li').length === 6");
    assert_eq!(browser.run("return window.kept.isConnected"), json!(true));
    let text = browser.run("return document.body.innerText");
    for part in [
        "Worker build-9/3310 is dead",
        "Worker gpu-1/77 is broken: 5 jobs in a row failed to start: no space left on device",
        "17 jobs of report.monthly v1 in queue default: no living worker has this task",
        "order-4712",
        "Überweisung 日本",
        "12 min 34 s",
        "silent for 12 s",
        "5 free slots",
    ] {
        assert!(text.as_str().unwrap().contains(part), "{part}\n{text}");
    }
    // One worker has told where its console is.
    let links = "[...document.querySelectorAll('#lanes .console')].filter((link) => !link.hidden).map((link) => link.href)";
    assert_eq!(
        browser.run(&format!("return {links}")),
        json!(["http://10.0.0.7:6670/"])
    );
    browser.wait("document.getElementById('line-ended').getAttribute('d').length > 1000");
    let label = browser.run("return document.getElementById('plot').getAttribute('aria-label')");
    assert!(
        label.as_str().unwrap().contains("Jobs were lost"),
        "{label}"
    );
    for (name, width, dark) in [
        ("busy-light", 1200, false),
        ("busy-dark", 1200, true),
        ("busy-narrow", 375, false),
        ("busy-narrow-dark", 320, true),
    ] {
        browser.look(width, 900, dark);
        let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
        assert!(
            overflow.as_i64().unwrap() <= 0,
            "{name} is {overflow} too wide"
        );
        browser.screenshot(name);
    }

    browser.look(1200, 900, false);
    served.show(samples::unreachable());
    browser.wait("!document.getElementById('banner').hidden && document.getElementById('banner').innerText.includes('The server cannot be reached: connection refused. The figures below are 1 min 5 s old.')");
    browser.screenshot("unreachable-light");
    browser.look(375, 900, true);
    browser.screenshot("unreachable-narrow-dark");
    served.show(samples::busy());
    browser.wait("document.getElementById('banner').hidden");
    // Now the program that serves the page ends.
    served.stop();
    browser.wait("!document.getElementById('banner').hidden && document.getElementById('banner').innerText.includes('cannot reach the program that serves it')");
    browser.screenshot("page-gone");
}

#[test]
fn hostile_names_stay_text() {
    let browser = browser_or_return!();
    let served = Served::start(samples::hostile());
    browser.look(1200, 900, false);
    browser.open(&served.url);
    browser.wait("document.querySelectorAll('#lanes > li').length === 6");
    browser.wait("document.querySelector('.slots .label')");
    let check = "return [window.pwned, document.images.length, document.scripts.length,
        document.querySelectorAll('[onerror]').length]";
    assert_eq!(browser.run(check), json!([null, 0, 1, 0]));
    let links = "return document.querySelectorAll('#lanes .console[href]').length";
    assert_eq!(
        browser.run(links),
        json!(0),
        "an address that runs a script"
    );
    for place in [
        ".slots .label",
        ".slots .task",
        "#lanes h3",
        "#namespace",
        "#server",
        "#queues th span",
    ] {
        let text = browser.run(&format!(
            "return document.querySelector('{place}').textContent"
        ));
        assert_eq!(text, json!(printable(samples::HOSTILE)), "{place}");
    }
    browser.screenshot("hostile");
    browser.look(320, 900, true);
    let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
    assert!(overflow.as_i64().unwrap() <= 0, "{overflow} too wide");
    browser.screenshot("hostile-narrow");
    // The second defence: even markup that gets in does not run.
    browser.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=2\">')",
    );
    browser.run("const s = document.createElement('script'); s.textContent = 'window.pwned=3'; document.body.append(s)");
    browser.run("document.body.append(document.createElement('p'))");
    assert_eq!(browser.run("return window.pwned"), json!(null));
}

#[test]
fn the_page_is_sound_for_keyboards_and_screen_readers() {
    let browser = browser_or_return!();
    let served = Served::start(samples::busy());
    browser.look(1200, 900, false);
    browser.open(&served.url);
    browser.wait("document.querySelectorAll('#lanes > li').length === 6");
    let problems = browser.run(
        "const bad = [];
        const names = new Set();
        const h1 = document.querySelectorAll('h1').length;
        if (h1 !== 1) bad.push(`${h1} h1`);
        if (!document.documentElement.lang) bad.push('no language');
        for (const id of ['main', 'header', 'footer']) if (!document.querySelector(id)) bad.push(`no ${id}`);
        for (const section of document.querySelectorAll('section, [role=region]')) {
          const title = document.getElementById(section.getAttribute('aria-labelledby'));
          const name = section.getAttribute('aria-label') || (title && title.textContent);
          if (!name || names.has(name)) bad.push(`not named, or twice: ${section.outerHTML.slice(0, 60)}`);
          names.add(name);
        }
        for (const th of document.querySelectorAll('th')) if (!th.scope) bad.push(`no scope: ${th.textContent}`);
        for (const tr of document.querySelectorAll('tbody tr')) if (!tr.querySelector('th[scope=row]')) bad.push('a row without a head');
        let level = 0;
        for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
          const next = Number(h.tagName[1]);
          if (next > level + 1) bad.push(`h${level} before ${h.outerHTML}`);
          level = next;
        }
        if (document.getElementById('banner').getAttribute('role') !== 'alert') bad.push('silent banner');
        if (document.querySelector('[tabindex]:not([tabindex=\"0\"]):not([tabindex=\"-1\"])')) bad.push('a tab order of its own');
        return bad;",
    );
    assert_eq!(problems, json!([]));
}
