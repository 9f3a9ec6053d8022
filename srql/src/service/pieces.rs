//! Answers that are written as their rows come, in pieces, within a limit of bytes.

use std::{io, sync::Arc};

use futures_util::{Stream, stream};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;

use super::{Failure, Service, callers::Caller, measured::Underway};
use crate::{
    plan::{Column, Plan},
    reader::{Answer, ROWS_WAITING, values},
};

/// Bytes that are sent at a time, and pieces that wait to be sent.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_WAITING: usize = 4;

/// Writes an answer.
pub(super) trait Writer: Send + 'static {
    /// What is sent at a time.
    type Piece: Send + 'static;

    /// Writes what stands before the rows. The answer has none yet, and says where they are read from.
    fn begin(&mut self, answer: &Answer) -> io::Result<()>;

    /// Writes a row.
    fn row(&mut self, row: Vec<Value>) -> io::Result<()>;

    /// Writes what stands behind the rows.
    fn end(&mut self, answer: &Answer) -> io::Result<()>;

    /// Bytes that are written and were not taken.
    fn waiting(&self) -> usize;

    /// Takes them.
    fn take(&mut self) -> Self::Piece;
}

/// Where pieces go, and how many bytes of them may.
struct Sink<W: Writer> {
    writer: W,
    put: mpsc::Sender<Result<W::Piece, Failure>>,
    bytes: usize,
    bytes_max: usize,
    underway: Arc<Underway>,
}

/// Why no more pieces go.
enum Cut {
    /// The answer is wrong with that.
    Failed(Failure),
    /// Nobody takes them, or there are no more rows for a reason that the reader knows.
    GivenUp,
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Cut::Failed(Failure::unwritten(&error))
    }
}

impl<W: Writer> Sink<W> {
    /// Sends what is written. What is over the limit is not sent.
    async fn send(&mut self) -> Result<(), Cut> {
        let bytes = self.writer.waiting();
        if bytes == 0 {
            return Ok(());
        }
        self.bytes += bytes;
        if self.bytes > self.bytes_max {
            return Err(Cut::Failed(Failure::over_bytes(self.bytes_max)));
        }
        self.underway.wrote(bytes);
        self.put.send(Ok(self.writer.take())).await.map_err(|_| Cut::GivenUp)
    }

    async fn rows(
        &mut self,
        begun: oneshot::Receiver<Answer>,
        mut rows: mpsc::Receiver<Row>,
        columns: &[Column],
    ) -> Result<(), Cut> {
        self.writer.begin(&begun.await.map_err(|_| Cut::GivenUp)?)?;
        self.send().await?;
        while let Some(row) = rows.recv().await {
            let row = values(&row, columns).map_err(|error| Cut::Failed(error.into()))?;
            self.writer.row(row)?;
            self.underway.found(1);
            if self.writer.waiting() >= PIECE_BYTES {
                self.send().await?;
            }
        }
        self.send().await
    }

    async fn end(&mut self, answer: &Answer) -> Result<(), Cut> {
        self.writer.end(answer)?;
        self.send().await
    }
}

impl Service {
    /// Answers with all rows of a plan, as they come. An answer that is cut ends in what is wrong, so that nobody takes it
    /// for whole.
    pub(super) async fn stream<W: Writer>(
        self: Arc<Self>,
        caller: &Caller,
        plan: Plan,
        writer: W,
        underway: Arc<Underway>,
    ) -> Result<impl Stream<Item = Result<W::Piece, Failure>> + Send + use<W>, Failure> {
        let mut borrowed = self.readers.borrow(&caller.tenant).await?;
        let (put, mut pieces) = mpsc::channel(PIECES_WAITING);
        let (tell_begun, has_begun) = oneshot::channel();
        let tenant = caller.tenant.clone();
        tokio::spawn(async move {
            let mut sink =
                Sink { writer, put, bytes: 0, bytes_max: self.answer_bytes_max, underway: underway.clone() };
            let (row_put, rows) = mpsc::channel(ROWS_WAITING);
            let (tell, begun) = oneshot::channel();
            let begin = |answer: &Answer| {
                _ = tell.send(answer.clone());
                _ = tell_begun.send(());
            };
            let reading = borrowed.reader.rows(&tenant, &plan, row_put, begin);
            let (read, sent) = tokio::join!(reading, sink.rows(begun, rows, &plan.columns));
            let ended = match (read, sent) {
                (Err(error), _) => {
                    self.readers.give_back(borrowed);
                    Err(Cut::Failed(error.into()))
                }
                // What is still being answered is given up with its connection.
                (Ok(_), Err(cut)) => Err(cut),
                (Ok(answer), Ok(())) => {
                    self.readers.give_back(borrowed);
                    sink.end(&answer).await
                }
            };
            match ended {
                Ok(()) => underway.answered(),
                Err(Cut::GivenUp) => {}
                Err(Cut::Failed(failure)) => {
                    underway.refused(&failure);
                    _ = sink.put.send(Err(failure)).await;
                }
            }
        });
        // What is refused before anything of it is answered is no answer.
        if has_begun.await.is_err()
            && let Some(Err(failure)) = pieces.recv().await
        {
            return Err(failure);
        }
        Ok(stream::unfold(pieces, async |mut pieces| Some((pieces.recv().await?, pieces))))
    }
}

/// All pieces of a page.
pub(super) fn pieces_of<W: Writer>(
    mut writer: W,
    mut answer: Answer,
    underway: &Underway,
) -> Result<Vec<W::Piece>, Failure> {
    let mut pieces = Vec::new();
    let rows = std::mem::take(&mut answer.rows);
    underway.found(rows.len());
    let mut take = |writer: &mut W, at_least: usize| {
        let bytes = writer.waiting();
        if bytes >= at_least {
            underway.wrote(bytes);
            pieces.push(writer.take());
        }
    };
    let failed = |error: io::Error| Failure::unwritten(&error);
    writer.begin(&answer).map_err(failed)?;
    take(&mut writer, 1);
    for row in rows {
        writer.row(row).map_err(failed)?;
        take(&mut writer, PIECE_BYTES);
    }
    take(&mut writer, 1);
    writer.end(&answer).map_err(failed)?;
    take(&mut writer, 1);
    Ok(pieces)
}
