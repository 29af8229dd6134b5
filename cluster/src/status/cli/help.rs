//! What `--help` prints.

/// How to reach and log in to a server: the same for all commands that need one.
macro_rules! connection {
    () => {
        "
Where:
  --server URL[,URL]…         nats://host:port or tls://host:port
                              [NATS_URL, else nats://127.0.0.1:4222]
  --namespace NAME            [default]
  --identity NAME             the name for which this login's permissions are made, if it has any

Log in (at most one way; no secret is taken from the command line):
  --user NAME                 with --password-file FILE, or [NATS_PASSWORD]
                              [NATS_USER]
  --token-file FILE           a token
  --nkey-file FILE            the seed of an nkey
  --credentials FILE          a credentials file [NATS_CREDS]

TLS:
  --tls                       refuse a server without TLS
  --root-certificates FILE    trust these certificates (PEM)
  --client-certificate CERTIFICATE,KEY
                              present this certificate (PEM files)
  --insecure                  accept a server off this machine that lets everyone in

  --connect-timeout TIME      how long the first connection may take [5s]"
    };
}

pub(crate) const GENERAL: &str = "\
Shows and manages a cluster of futurepool's workers.

Usage: futurepool-cluster COMMAND [OPTIONS]

Commands:
  status          show workers, queues, rates and stores in the terminal
  serve           serve the same as a web page, as JSON and as metrics for Prometheus
  setup           make the stores of a namespace
  permissions     print the server's configuration for a kind of login
  drain           ask workers to take no more jobs and to exit when they have none
  purge-detached  forget the outcome of a detached job

Each command explains itself: futurepool-cluster COMMAND --help
--version prints the version.

Exit codes: 0 done, 1 failed, 2 called in a wrong way.";

pub(crate) const STATUS: &str = concat!(
    "\
Shows workers, queues, submitters, rates and stores.

Usage: futurepool-cluster status [OPTIONS]

  --once                      show it once, after a second [the default]
  --watch                     show it again each second
  --json                      print JSON: one line each time with --watch

It changes nothing. Figures marked with ≥ are lower bounds: the login cannot write the key whose
echo tells the server's time.
",
    connection!()
);

pub(crate) const SERVE: &str = concat!(
    "\
Serves a web page that shows workers, queues, submitters, rates and stores, live.

Usage: futurepool-cluster serve [OPTIONS]

  --listen ADDRESS:PORT       [127.0.0.1:6680]
  --token TOKEN               require this token, of 16 characters or more
                              [FUTUREPOOL_CLUSTER_TOKEN, which no process list shows]

Also /status.json, and /metrics for Prometheus. An address that other machines reach needs a token.
A browser asks for it as a password, with any name; Prometheus sends it as a bearer token. The page
itself does not encrypt: put a proxy with TLS in front of it.
",
    connection!()
);

pub(crate) const SETUP: &str = concat!(
    "\
Makes the stores of a namespace, with an administrator's login. Those that exist stay as they are.

Usage: futurepool-cluster setup [OPTIONS]

  --lease TIME                how long a job belongs to a worker without news of it [30s]
  --replicas NUMBER           how many servers keep each store: 1, 3 or 5 [1]
  --queue-bytes SIZE          how large the store of jobs may become, such as 512MiB [1GiB]
  --for NAME                  also a store of results for the submitter of this identity; again for
                              more
",
    connection!()
);

pub(crate) const PERMISSIONS: &str = "\
Prints the part of a server's configuration that gives a login what it needs, and no more.

Usage: futurepool-cluster permissions submitter|worker|viewer|admin --identity NAME [OPTIONS]

  --identity NAME             tells this login from others: the peer that logs in names the same
  --namespace NAME            [default]
  --for NAME                  of an admin: the identities whose stores it makes; again for more

A submitter reads only its own results. A worker runs jobs. A viewer is for `status` and `serve`. An
admin is for `setup`, `drain` and `purge-detached`, too.

It connects to no server.";

pub(crate) const DRAIN: &str = concat!(
    "\
Asks workers to take no more jobs, to give back what has not started, and to exit when the rest has
ended.

Usage: futurepool-cluster drain WORKER… [OPTIONS]
       futurepool-cluster drain --all [OPTIONS]

  WORKER                      its name (host/pid) or id, as `status` shows them
  --all                       all workers of the namespace

It waits until each of them says that it drains. It does not wait for their jobs.
",
    connection!()
);

pub(crate) const PURGE_DETACHED: &str = concat!(
    "\
Forgets the outcome of a detached job, so that its key can be used again before 24 hours are over.

Usage: futurepool-cluster purge-detached KEY [OPTIONS]

A job that has not ended yet stays.
",
    connection!()
);
