use crate::webdriver::Browser;

/// Opens the console at `FUTUREPOOL_CONSOLE`, which another program serves.
#[test]
#[ignore = "for people"]
fn pictures_of_another_program() {
    let Some(browser) = Browser::start_or_skip() else {
        return;
    };
    let url = std::env::var("FUTUREPOOL_CONSOLE").unwrap();
    browser.look(1200, 900, false);
    browser.open(&url);
    std::thread::sleep(std::time::Duration::from_secs(40));
    for (name, width, dark) in [
        ("load-light", 1200, false),
        ("load-dark", 1200, true),
        ("load-narrow", 375, false),
    ] {
        browser.screenshot(name, width, dark);
    }
    println!("{:#?}", browser.log());
}
