//! A small HTTP server on this machine, for the examples that are clients. It ends with the process.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use futurepool::ThreadPool;

/// Starts the server and returns its address.
///
/// `answer` receives the path of each request, without the leading slash. If `answer` fails, the
/// server closes the connection.
///
/// A connection occupies a worker until the client closes it. Clients must not open more than
/// `connections`: further ones would wait forever.
pub(crate) fn start<A>(connections: usize, answer: A) -> io::Result<SocketAddr>
where
    A: Fn(&str, &TcpStream) -> io::Result<()> + Clone + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    // The spare workers serve while closed connections are still being torn down.
    let pool = ThreadPool::builder()
        .max_workers(connections + 8)
        .thread_name_prefix("server")
        .build()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let answer = answer.clone();
            // Detaches the job. The client sees its errors, and reports them.
            drop(pool.submit(move || serve(&connection, answer)));
        }
    });
    Ok(address)
}

/// Answers the requests of one connection until the client closes it.
fn serve<A>(connection: &TcpStream, answer: A) -> io::Result<()>
where
    A: Fn(&str, &TcpStream) -> io::Result<()>,
{
    // Each answer is one write: do not wait for more data to fill a packet.
    connection.set_nodelay(true)?;
    let mut requests = BufReader::new(connection).lines();
    while let Some(line) = requests.next().transpose()? {
        // `GET /MUG-0100 HTTP/1.1`, then headers, then an empty line.
        let path = line.split(' ').nth(1).unwrap_or("").trim_start_matches('/');
        while !requests.next().transpose()?.unwrap_or_default().is_empty() {}
        answer(path, connection)?;
    }
    Ok(())
}

/// Sends an answer with a status such as `200 OK`.
pub(crate) fn respond(mut connection: &TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.extend(body);
    connection.write_all(&answer)
}
