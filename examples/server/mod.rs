//! A small HTTP server on this machine, for the examples that need one to ask. It ends with the program.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use futurepool::ThreadPool;

/// Starts it. `answer` gets the path of each request, without the first slash; if it fails, the connection is broken
/// off.
///
/// A connection keeps its worker for as long as the client keeps it open: if the clients had more than `connections`,
/// the last ones would wait for ever.
pub(crate) fn start<A>(connections: usize, answer: A) -> io::Result<SocketAddr>
where
    A: Fn(&str, &TcpStream) -> io::Result<()> + Clone + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    // Some more are for those that were broken off and have not ended yet.
    let pool = ThreadPool::builder()
        .max_workers(connections + 8)
        .thread_name_prefix("server")
        .build()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answer = answer.clone();
            // Nobody waits for these jobs. What goes wrong in one is what the client sees, and reports.
            drop(pool.submit(move || serve(&connection, answer)));
        }
    });
    Ok(address)
}

/// Answers the requests of one connection, until it is closed.
fn serve<A>(connection: &TcpStream, answer: A) -> io::Result<()>
where
    A: Fn(&str, &TcpStream) -> io::Result<()>,
{
    // Each answer is one write, which need not wait for others to fill a packet.
    connection.set_nodelay(true)?;
    let mut requests = BufReader::new(connection).lines();
    while let Some(line) = requests.next().transpose()? {
        // `GET /MUG-0100 HTTP/1.1`, then headers, up to an empty line.
        let path = line.split(' ').nth(1).unwrap_or("").trim_start_matches('/');
        while !requests.next().transpose()?.unwrap_or_default().is_empty() {}
        answer(path, connection)?;
    }
    Ok(())
}

/// Sends an answer with this status, such as `200 OK`.
pub(crate) fn respond(mut connection: &TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.extend(body);
    connection.write_all(&answer)
}
