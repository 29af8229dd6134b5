//! Certificates for tests, made by `openssl`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// An authority, a certificate of a server on the loopback interface, and one of a client.
#[derive(Debug)]
pub(crate) struct Certificates {
    directory: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let directory = tempfile::tempdir().expect("a directory for certificates");
        let certificates = Self { directory };
        let ca = [
            "-x509",
            "-subj",
            "/CN=tests",
            "-out",
            "ca.pem",
            "-keyout",
            "ca.key",
        ];
        certificates.request(&ca);
        certificates.issue("server", "subjectAltName=IP:127.0.0.1,DNS:localhost");
        certificates.issue("client", "extendedKeyUsage=clientAuth");
        certificates
    }

    fn request(&self, arguments: &[&str]) {
        let key = [
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        self.openssl(&[&key, arguments, &["-days", "2"]].concat());
    }

    fn issue(&self, name: &str, extension: &str) {
        let (request, key) = (format!("{name}.csr"), format!("{name}.key"));
        let subject = format!("/CN={name}");
        self.request(&["-subj", &subject, "-out", &request, "-keyout", &key]);
        let extensions = self.path("extensions");
        std::fs::write(&extensions, extension).expect("a file of extensions");
        let certificate = format!("{name}.pem");
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .expect("the tests of TLS need the command `openssl`");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {errors}");
    }

    /// Returns the path of `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the lines of a server's configuration that turn TLS on.
    pub(crate) fn config(&self, verify_clients: bool) -> String {
        format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {verify_clients} }}",
            self.path("server.pem"),
            self.path("server.key"),
            self.path("ca.pem"),
        )
    }
}
