//! Lines of bounded length from a stream of bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line that is read, in bytes. The longest that a server sends lists 1200 jobs with their boards.
pub const LINE_BYTES_MAX: usize = 8 << 20;

/// Cuts a stream into lines.
pub struct LineReader<R> {
    stream: R,
    /// What came and was not yet given out.
    bytes: Vec<u8>,
    /// So many of them have no line's end.
    searched_bytes: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, bytes: Vec::new(), searched_bytes: 0 }
    }

    /// The next line without its end; `None` where the stream ends, in a line or after it. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// The operating system's; [`io::ErrorKind::InvalidData`] for a line above [`LINE_BYTES_MAX`].
    pub async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.bytes[self.searched_bytes..].iter().position(|byte| *byte == b'\n') {
                let rest = self.bytes.split_off(self.searched_bytes + at + 1);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.pop();
                self.searched_bytes = 0;
                return Ok(Some(line));
            }
            self.searched_bytes = self.bytes.len();
            if self.searched_bytes > LINE_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a line of more than {LINE_BYTES_MAX} bytes"),
                ));
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn lines_come_whole_and_in_order() {
        let mut lines = LineReader::new(&b"{\"a\": 1}\n\n  x\nrest"[..]);
        assert_eq!(lines.line().await.unwrap().as_deref(), Some(&b"{\"a\": 1}"[..]));
        assert_eq!(lines.line().await.unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(lines.line().await.unwrap().as_deref(), Some(&b"  x"[..]));
        assert_eq!(lines.line().await.unwrap(), None, "a line without an end is none");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_line_without_end_is_refused() {
        let mut lines = LineReader::new(tokio::io::repeat(b'x'));
        assert_eq!(lines.line().await.expect_err("endless").kind(), io::ErrorKind::InvalidData);
    }
}
