//! The page in a real browser. Skipped, with a printed reason, where there is none.
//!
//! With `FUTUREPOOL_SCREENSHOTS=<folder>` the tests write pictures of what they see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futurepool::{ThreadPool, console};
use serde_json::json;

use crate::client::served;
use crate::common::child::alone;
use crate::webdriver::Browser;

/// Asserts that the page is not wider than the window, and takes pictures: of this name, as wide as
/// this, and dark or light.
fn draw_in_widths(browser: &Browser, pictures: &[(&str, u32, bool)]) {
    for &(name, width, dark) in pictures {
        browser.look(width, 900, dark);
        let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
        assert!(
            overflow.as_i64().unwrap() <= 0,
            "{name} is {overflow} too wide"
        );
        browser.screenshot(name, width, dark);
    }
}

/// Runs labelled jobs in a pool of three workers until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Load {
    fn start(name: &str) -> Self {
        let builder = ThreadPool::builder()
            .max_workers(3)
            .thread_name_prefix(name);
        let pool = builder.build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            for number in 0_u64.. {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let millis = 20 + number * 37 % 150;
                let label = if number % 3 == 0 { "resize" } else { "decode" };
                let job = pool.job(move || thread::sleep(Duration::from_millis(millis)));
                drop(job.label(label).submit());
                thread::sleep(Duration::from_millis(25));
            }
        };
        let thread = Some(thread::spawn(run));
        Self { stop, thread }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Other tests have pools on the same page. `P` is the part of one pool.
const FIND: &str =
    "window.P = (name) => document.querySelector(`section[aria-label='Pool ${name}']`)";

#[test]
fn the_page_shows_lanes_problems_and_a_timeline_that_can_be_paused() {
    let Some(browser) = Browser::start_or_skip() else {
        return;
    };
    let console = served();
    let builder = ThreadPool::builder().max_workers(2);
    let quiet = builder.thread_name_prefix("quiet").build().unwrap();
    quiet.submit(|| ()).join().unwrap();
    browser.look(1200, 900, false);
    browser.open(&format!("http://{}/", console.local_addr()));
    browser.run(FIND);
    browser.wait("P('quiet') && P('quiet').querySelectorAll('.lane.idle').length === 1");
    browser.screenshot("idle-light", 1200, false);
    browser.screenshot("idle-dark", 1200, true);

    let load = Load::start("images");
    browser.wait("P('images') && P('images').querySelectorAll('.lane').length === 3");
    browser.wait("[...P('images').querySelectorAll('.lane.running .does')].some((does) => does.innerText.match(/resize|decode/))");
    browser.wait("P('images').querySelectorAll('.jobs tr').length === 2");
    // An element keeps its place while its figures change: a focus or a selection stays.
    browser.run("window.kept = P('images').querySelector('.lane')");

    // The lanes are drawn, and move. What is not in view is not drawn.
    let drawn = "(() => { const c = P('images').querySelector('.lane canvas');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n += i; return n; })()";
    browser.run("P('images').scrollIntoView()");
    browser.wait(&format!("{drawn} > 0"));
    browser.run(&format!("window.before = {drawn}"));
    browser.wait(&format!("{drawn} !== window.before"));

    // A pause holds the timeline, not the figures.
    browser.run("document.getElementById('pause').click()");
    let pressed = "return document.getElementById('pause').getAttribute('aria-pressed')";
    assert_eq!(browser.run(pressed), json!("true"));
    let counts = "P('images').querySelector('.counts').innerText";
    browser.run(&format!(
        "window.before = {drawn}; window.countsBefore = {counts}"
    ));
    browser.wait(&format!("{counts} !== window.countsBefore"));
    browser.wait("document.getElementById('paused').innerText.match(/paused ([2-9]|[0-9]{2,}) s/)");
    assert_eq!(
        browser.run(&format!("return {drawn} === window.before")),
        json!(true)
    );
    browser.run("document.getElementById('pause').click()");
    browser.wait(&format!("{drawn} !== window.before"));
    assert_eq!(browser.run("return window.kept.isConnected"), json!(true));

    // A panic, with its message and place. It is text, whatever it says.
    let hostile = "<img src=x onerror='window.pwned=1'>\u{202e} no pixels";
    let job = quiet
        .job(move || panic!("{hostile}"))
        .label("<b>thumbnail</b>");
    assert!(job.submit().join().is_err());
    let shown = "(() => { const more = document.getElementById('more');
        if (!more.hidden && more.getAttribute('aria-expanded') === 'false') more.click();
        return document.getElementById('problems').innerText; })()";
    browser.wait(&format!("{shown}.includes('<b>thumbnail')"));
    let text = browser.run(&format!("return {shown}"));
    let text = text.as_str().unwrap();
    for part in [
        "panic",
        "<img src=x onerror='window.pwned=1'>\\u{202e} no pixels",
        "<b>thumbnail</b>",
        "browser.rs:",
        "pool quiet",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let harm = browser.run("return [window.pwned, document.images.length]");
    assert_eq!(harm, json!([null, 0]));

    draw_in_widths(
        &browser,
        &[
            ("panic-light", 1200, false),
            ("panic-dark", 1200, true),
            ("panic-narrow", 375, false),
            ("panic-narrow-dark", 320, true),
        ],
    );
    // Dark is dark.
    browser.look(1200, 900, true);
    let back = browser.run("return getComputedStyle(document.body).backgroundColor");
    assert_eq!(back, json!("rgb(18, 21, 27)"));

    // A pool that is dropped leaves the page.
    drop(load);
    browser.wait("!P('images')");
    let mut log = browser.log();
    // This test reads what is drawn, which the page does not.
    log.retain(|line| !line.contains("willReadFrequently"));
    assert_eq!(log, Vec::<String>::new());

    // The program ends its console.
    console.shutdown();
    browser
        .wait("document.getElementById('banner').innerText.includes('cannot reach the program')");
    browser.screenshot("gone", 1200, false);
}

#[test]
fn a_token_in_the_address_opens_the_page_and_is_gone_from_it() {
    let Some(browser) = Browser::start_or_skip() else {
        return;
    };
    let token = "0123456789abcdef";
    let console = console::builder()
        .token(token)
        .serve("127.0.0.1:0")
        .unwrap();
    let url = format!("http://{}/", console.local_addr());
    browser.open(&url);
    assert!(
        browser
            .run("return document.body.innerText")
            .as_str()
            .unwrap()
            .contains("needs its token")
    );
    browser.open(&format!("{url}?token={token}"));
    browser.wait("document.getElementById('connection').innerText === 'live'");
    assert_eq!(browser.run("return location.href"), json!(url));
    assert_eq!(
        browser.run("return document.cookie"),
        json!(""),
        "scripts cannot read it"
    );
}

/// Each answer updates the page: nothing piles up in it. `alone`, as other tests look for sections
/// with the same name.
#[test]
fn no_part_of_the_page_is_there_twice_although_two_pools_have_the_same_name() {
    alone(
        "browser::no_part_of_the_page_is_there_twice_although_two_pools_have_the_same_name",
        nothing_is_there_twice,
    );
}

fn nothing_is_there_twice() {
    let Some(browser) = Browser::start_or_skip() else {
        return;
    };
    let console = served();
    let _broken = [(); 2].map(|()| {
        let builder = ThreadPool::builder().thread_name_prefix("twins");
        let pool = builder.initializer(|| Err::<(), _>("no database"));
        let pool = pool.build().unwrap();
        assert!(pool.submit(|| ()).join().unwrap_err().is_broken());
        pool
    });
    browser.look(1200, 900, false);
    browser.open(&format!("http://{}/", console.local_addr()));
    browser.run(
        "window.answers = 0;
        const ask = window.fetch;
        window.fetch = async (...request) => {
          const answer = await ask(...request);
          window.answers += 1;
          return answer;
        };
        // As often as if the page was hidden and shown again.
        const show = () => document.dispatchEvent(new Event('visibilitychange'));
        setInterval(() => { for (let n = 0; n < 3; n += 1) show(); }, 100);",
    );
    browser.wait("window.answers >= 20");
    let points = "return [...store.values()].flatMap(({ points }) =>
        points.filter((point, index) => index > 0 && point[0] <= points[index - 1][0])).length";
    assert_eq!(browser.run(points), json!(0));
    let notices = "return [...document.querySelectorAll('#notices li')]
        .filter((notice) => notice.innerText.includes('twins')).length";
    assert_eq!(browser.run(notices), json!(2));
}

#[test]
fn the_page_is_sound_for_keyboards_and_screen_readers() {
    let Some(browser) = Browser::start_or_skip() else {
        return;
    };
    let console = served();
    let _load = Load::start("sound");
    browser.look(1200, 900, false);
    browser.open(&format!("http://{}/", console.local_addr()));
    browser.wait(
        "[...document.querySelectorAll('.pool')].some(pool => pool.innerText.includes('resize'))",
    );
    let problems = browser.run(
        "const bad = [];
        const names = new Set();
        const h1 = document.querySelectorAll('h1').length;
        if (h1 !== 1) bad.push(`${h1} h1`);
        if (!document.documentElement.lang) bad.push('no language');
        for (const id of ['main', 'header', 'footer']) if (!document.querySelector(id)) bad.push(`no ${id}`);
        for (const section of document.querySelectorAll('section, [role=region]')) {
          if (section.closest('[hidden]')) continue;
          const title = document.getElementById(section.getAttribute('aria-labelledby'));
          const name = section.getAttribute('aria-label') || (title && title.textContent);
          if (!name || names.has(name)) bad.push(`not named, or twice: ${name}`);
          names.add(name);
        }
        for (const th of document.querySelectorAll('th')) if (!th.scope) bad.push(`no scope: ${th.textContent}`);
        for (const tr of document.querySelectorAll('tbody tr')) if (!tr.querySelector('th[scope=row]')) bad.push('a row without a head');
        for (const canvas of document.querySelectorAll('.pool canvas')) if (!canvas.getAttribute('aria-label')) bad.push('a canvas without words');
        let level = 0;
        for (const h of document.querySelectorAll('h1, h2, h3')) {
          const next = Number(h.tagName[1]);
          if (next > level + 1) bad.push(`h${level} before ${h.outerHTML}`);
          level = next;
        }
        if (document.getElementById('banner').getAttribute('role') !== 'alert') bad.push('silent banner');
        return bad;",
    );
    assert_eq!(problems, json!([]));
}

/// Elsewhere the CPU time of the whole process counts, and other tests compute.
#[cfg(target_os = "linux")]
#[test]
fn the_page_shows_why_a_pool_has_its_size_and_when_it_changed() {
    use crate::common::Gate;

    let Some(browser) = Browser::start_or_skip() else {
        return;
    };
    let console = served();
    let processors = thread::available_parallelism().unwrap().get();
    let builder = ThreadPool::builder().auto_size(1..=8 * processors);
    let own = builder.thread_name_prefix("sizes").build().unwrap();
    let fixed = ThreadPool::builder().thread_name_prefix("steady");
    let _fixed = fixed.build().unwrap();
    browser.look(1200, 900, false);
    browser.open(&format!("http://{}/", console.local_addr()));
    browser.run(FIND);
    browser.wait("P('steady') && P('sizes')");
    let hidden = "['.auto-size', '.limits'].map((part) => P('NAME').querySelector(part).hidden)";
    let hidden = |name| browser.run(&format!("return {}", hidden.replace("NAME", name)));
    assert_eq!(hidden("steady"), json!([true, true]));
    assert_eq!(hidden("sizes"), json!([false, false]));
    let decision = "P('sizes').querySelector('.auto-size').innerText";
    browser.wait(&format!("{decision}.includes('No change since the start')"));

    let gate = Gate::new();
    let jobs: Vec<_> = (0..8 * processors)
        .map(|_| {
            let gate = gate.clone();
            own.submit(move || gate.wait())
        })
        .collect();
    browser.wait(&format!(
        "{decision}.match(/the jobs wait and leave processors free.*Changed [0-9.]+ m?s ago/)"
    ));
    // The line has a step: its right end is higher than its left end.
    browser.run("P('sizes').scrollIntoView()");
    browser.wait(
        "(() => { const c = P('sizes').querySelector('canvas.limit');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        const line = [];
        for (let x = 0; x < c.width; x += 1) for (let y = 0; y < c.height; y += 1) {
          const at = 4 * (y * c.width + x);
          if (Math.abs(d[at] - 20) + Math.abs(d[at + 1] - 112) + Math.abs(d[at + 2] - 59) < 60) line.push(y);
        }
        return line.length > 20 && line[line.length - 1] < line[0] - 8; })()",
    );
    draw_in_widths(
        &browser,
        &[
            ("sizes-light", 1200, false),
            ("sizes-dark", 1200, true),
            ("sizes-narrow", 320, false),
        ],
    );
    gate.open();
    for job in jobs {
        job.join().unwrap();
    }
}

/// Writes pictures of the console that another program serves at `FUTUREPOOL_CONSOLE`, such as the
/// example `console`. One of them is in the documentation.
#[test]
#[ignore = "makes pictures for people"]
fn pictures_of_another_program() {
    let (Ok(url), Some(browser)) = (
        std::env::var("FUTUREPOOL_CONSOLE"),
        Browser::start_or_skip(),
    ) else {
        return;
    };
    browser.look(1200, 900, false);
    browser.open(&url);
    browser.wait("document.querySelector('.lane')");
    // Until the timeline is full.
    thread::sleep(Duration::from_secs(62));
    browser.screenshot("load-light", 1100, false);
    browser.screenshot("load-dark", 1200, true);
    browser.screenshot("load-narrow", 375, false);
}
