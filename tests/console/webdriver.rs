//! A headless Chromium, driven over ChromeDriver.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a page may take for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// A browser. Dropping it ends it.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    /// The browser's profile, gone with it.
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser. Returns `None`, and says why, where there is none.
    pub(crate) fn start_or_skip() -> Option<Self> {
        match Self::start() {
            Ok(browser) => Some(browser),
            Err(reason) => {
                // Not a macro: its output would be hidden as that of a test that passes.
                let _ = writeln!(std::io::stderr(), "skipped: {reason}");
                None
            }
        }
    }

    fn start() -> Result<Self, String> {
        let chromium = find("chromium").or_else(|_| find("google-chrome"))?;
        let profile = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut driver = Command::new(find("chromedriver")?)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, port) = line.split_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });
        // What it prints later must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self {
            driver,
            session: format!("http://127.0.0.1:{}/session", port.unwrap_or_default()),
            _profile: profile,
        };
        let flags = "headless no-sandbox disable-gpu disable-quic no-first-run \
             disable-background-networking disable-component-update disable-sync hide-scrollbars";
        let mut arguments: Vec<_> = flags.split(' ').map(|flag| format!("--{flag}")).collect();
        arguments.retain(|flag| flag != "--");
        let folder = browser._profile.path().display();
        arguments.push(format!("--user-data-dir={folder}"));
        let options = json!({ "binary": chromium, "args": arguments });
        let wanted = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let body = json!({ "capabilities": { "alwaysMatch": wanted } });
        let answer = browser.post("", &body)?;
        let id = answer["sessionId"].as_str().ok_or("no session")?;
        browser.session += &format!("/{id}");
        Ok(browser)
    }

    pub(crate) fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Sets the size of the page, and its colours.
    pub(crate) fn look(&self, width: u32, height: u32, dark: bool) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": features }),
        );
    }

    /// Runs the body of a function in the page and returns its result.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(crate) fn wait(&self, expression: &str) {
        let start = Instant::now();
        while self.run(&format!("return Boolean({expression})")) != json!(true) {
            let text = || self.run("return document.body.innerText").to_string();
            assert!(
                start.elapsed() < LIMIT,
                "never true: {expression}\n{}",
                text()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns what the page, and the browser about the page, have written to its log.
    pub(crate) fn log(&self) -> Vec<String> {
        let entries = self.command("se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// Writes a picture of the whole page into the folder that `FUTUREPOOL_SCREENSHOTS` names.
    pub(crate) fn screenshot(&self, name: &str, width: u32, dark: bool) {
        let Some(folder) = std::env::var_os("FUTUREPOOL_SCREENSHOTS") else {
            return;
        };
        self.look(width, 900, dark);
        let height = self.run("return document.documentElement.scrollHeight");
        self.look(width, height.as_u64().unwrap_or(900) as u32, dark);
        // The page draws what has come into view.
        std::thread::sleep(Duration::from_millis(500));
        let answer = self.devtools("Page.captureScreenshot", &json!({ "format": "png" }));
        let picture = base64(answer["data"].as_str().expect("a picture"));
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, picture).expect("the folder exists");
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.command("goog/cdp/execute", &body)
    }

    #[track_caller]
    fn command(&self, name: &str, body: &Value) -> Value {
        self.post(&format!("/{name}"), body)
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = ureq::post(format!("{}{path}", self.session))
            .config()
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            .build();
        let answer = request
            .send(body.to_string())
            .map_err(|error| error.to_string())?;
        let mut body = answer.into_body();
        let body = body.with_config().limit(100 << 20).read_to_string();
        let body = body.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        match answer["value"].get("error") {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }
}

fn find(name: &str) -> Result<PathBuf, String> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut all = std::env::split_paths(&paths).map(|path| path.join(name));
    let missing =
        || format!("{name} is not installed (Debian: apt-get install chromium chromium-driver)");
    all.find(|path| path.is_file()).ok_or_else(missing)
}

fn base64(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
