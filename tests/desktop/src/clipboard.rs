//! One connection's clipboard: text that the notes take from the client, and text that they offer it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ironrdp_cliprdr::backend::{ClipboardMessage, CliprdrBackend, CliprdrBackendFactory};
use ironrdp_cliprdr::pdu::{
    ClipboardFormat, ClipboardFormatId, ClipboardGeneralCapabilityFlags, FileContentsRequest,
    FileContentsResponse, FormatDataRequest, FormatDataResponse, LockDataId,
    OwnedFormatDataResponse,
};
use ironrdp_core::impl_as_any;
use ironrdp_server::{CliprdrServerFactory, ServerEvent, ServerEventSender};
use tokio::sync::mpsc::UnboundedSender;

use crate::lock;
use crate::scene::{NOTE_CHARACTERS_MAX, World};

/// A client that has not answered a question for this long may be asked again.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Characters of a client's text that are taken.
const TAKEN_CHARACTERS_MAX: usize = NOTE_CHARACTERS_MAX;

/// A handle on one connection's clipboard; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Clipboard {
    state: Arc<Mutex<State>>,
}

/// What is on a clipboard.
#[derive(Debug, PartialEq, Eq)]
pub enum Text {
    /// The client has it, and gives it to [`World::pasted`] in a moment.
    Asked,
    /// It was offered from here.
    Own(String),
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    sender: Option<UnboundedSender<ServerEvent>>,
    /// INVARIANT: false until the client's first list of formats. Web clients abort when the server
    /// lists its own before that, and the channel refuses data.
    ready: bool,
    /// INVARIANT: true only while the client's list is the newest one: whoever copied last owns the
    /// clipboard.
    client_has_text: bool,
    asked_at: Option<Instant>,
    offered: Option<String>,
}

impl State {
    fn send(&self, message: ClipboardMessage) {
        if let Some(sender) = &self.sender {
            // A connection that has ended needs no clipboard any more.
            let _ = sender.send(ServerEvent::Clipboard(message));
        }
    }
}

impl Clipboard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Ctrl+V gets: the text of whoever copied last.
    pub fn text(&self, now: Instant) -> Text {
        let mut state = self.state();
        if !state.ready || !state.client_has_text {
            return state.offered.clone().map_or(Text::Nothing, Text::Own);
        }
        let waits = |at: Instant| now.duration_since(at) < ANSWER_MAX;
        if !state.asked_at.is_some_and(waits) {
            state.asked_at = Some(now);
            state.send(ClipboardMessage::SendInitiatePaste(
                ClipboardFormatId::CF_UNICODETEXT,
            ));
        }
        Text::Asked
    }

    /// Offers a text to the client; false if the client has no clipboard.
    pub fn offer(&self, text: String) -> bool {
        let mut state = self.state();
        if state.ready {
            state.offered = Some(text);
            state.client_has_text = false;
            state.asked_at = None;
            let formats = vec![ClipboardFormat::new(ClipboardFormatId::CF_UNICODETEXT)];
            state.send(ClipboardMessage::SendInitiateCopy(formats));
        }
        state.ready
    }
}

/// Makes the channel's side of a [`Clipboard`].
pub struct Factory {
    pub clipboard: Clipboard,
    pub world: Arc<Mutex<World>>,
}

impl CliprdrServerFactory for Factory {}

impl ServerEventSender for Factory {
    fn set_sender(&mut self, sender: UnboundedSender<ServerEvent>) {
        self.clipboard.state().sender = Some(sender);
    }
}

impl CliprdrBackendFactory for Factory {
    fn build_cliprdr_backend(&self) -> Box<dyn CliprdrBackend> {
        Box::new(Channel {
            clipboard: self.clipboard.clone(),
            world: Arc::clone(&self.world),
        })
    }
}

/// What the client says on the clipboard's channel. Only text is exchanged.
struct Channel {
    clipboard: Clipboard,
    world: Arc<Mutex<World>>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Channel").finish_non_exhaustive()
    }
}

impl_as_any!(Channel);

impl CliprdrBackend for Channel {
    fn temporary_directory(&self) -> &str {
        ""
    }

    fn client_capabilities(&self) -> ClipboardGeneralCapabilityFlags {
        ClipboardGeneralCapabilityFlags::empty()
    }

    fn on_ready(&mut self) {
        self.clipboard.state().ready = true;
    }

    fn on_request_format_list(&mut self) {}

    fn on_process_negotiated_capabilities(&mut self, _: ClipboardGeneralCapabilityFlags) {}

    fn on_remote_copy(&mut self, formats: &[ClipboardFormat]) {
        let mut state = self.clipboard.state();
        state.client_has_text = formats
            .iter()
            .any(|format| format.id() == ClipboardFormatId::CF_UNICODETEXT);
        state.offered = None;
        // The channel drops the answer to a question about what was there before.
        state.asked_at = None;
    }

    fn on_format_data_request(&mut self, request: FormatDataRequest) {
        let state = self.clipboard.state();
        if !state.ready {
            return;
        }
        let response = match &state.offered {
            Some(text) if request.format == ClipboardFormatId::CF_UNICODETEXT => {
                OwnedFormatDataResponse::new_unicode_string(&text.replace('\n', "\r\n"))
            }
            _ => OwnedFormatDataResponse::new_error(),
        };
        state.send(ClipboardMessage::SendFormatData(response));
    }

    fn on_format_data_response(&mut self, response: FormatDataResponse<'_>) {
        // Nobody asked: nothing is pasted by itself.
        if self.clipboard.state().asked_at.take().is_none() {
            return;
        }
        let text = if response.is_error() {
            String::new()
        } else {
            text_of(response.data())
        };
        lock(&self.world).pasted(&text, Instant::now());
    }

    fn on_file_contents_request(&mut self, request: FileContentsRequest) {
        let state = self.clipboard.state();
        if state.ready {
            let refusal = FileContentsResponse::new_error(request.stream_id);
            state.send(ClipboardMessage::SendFileContentsResponse(refusal));
        }
    }

    fn on_file_contents_response(&mut self, _: FileContentsResponse<'_>) {}

    fn on_lock(&mut self, _: LockDataId) {}

    fn on_unlock(&mut self, _: LockDataId) {}
}

/// [MS-RDPECLIP §2.2.5.2] `CF_UNICODETEXT`: UTF-16, little-endian, up to a zero, lines end in CR LF.
/// What is no UTF-16 becomes the replacement character; what is too long is cut.
fn text_of(data: &[u8]) -> String {
    let units = data
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0);
    let mut text = String::new();
    let mut after_return = false;
    for character in char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .take(2 * TAKEN_CHARACTERS_MAX)
    {
        match character {
            '\r' => text.push('\n'),
            '\n' if after_return => {}
            _ => text.push(character),
        }
        after_return = character == '\r';
    }
    if let Some((at, _)) = text.char_indices().nth(TAKEN_CHARACTERS_MAX) {
        text.truncate(at);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Connection {
        clipboard: Clipboard,
        world: Arc<Mutex<World>>,
        channel: Box<dyn CliprdrBackend>,
        sent: UnboundedReceiver<ServerEvent>,
    }

    impl Connection {
        fn new() -> Self {
            let (sender, sent) = unbounded_channel();
            let mut factory = Factory {
                clipboard: Clipboard::default(),
                world: Arc::default(),
            };
            factory.set_sender(sender);
            Self {
                clipboard: factory.clipboard.clone(),
                world: Arc::clone(&factory.world),
                channel: factory.build_cliprdr_backend(),
                sent,
            }
        }

        fn ready(format: ClipboardFormatId) -> Self {
            let mut connection = Self::new();
            connection.channel.on_ready();
            connection
                .channel
                .on_remote_copy(&[ClipboardFormat::new(format)]);
            connection
        }

        fn next(&mut self) -> Option<ClipboardMessage> {
            match self.sent.try_recv() {
                Ok(ServerEvent::Clipboard(message)) => Some(message),
                _ => None,
            }
        }

        fn note(&self) -> String {
            lock(&self.world).copied(Instant::now()).unwrap_or_default()
        }
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn nothing_is_sent_before_the_clients_first_list() {
        let mut connection = Connection::new();
        assert!(!connection.clipboard.offer("early".to_owned()));
        assert_eq!(connection.clipboard.text(Instant::now()), Text::Nothing);
        let format = ClipboardFormatId::CF_UNICODETEXT;
        connection
            .channel
            .on_format_data_request(FormatDataRequest { format });
        assert!(connection.next().is_none());
    }

    #[test]
    fn a_client_without_text_is_not_asked() {
        let mut connection = Connection::ready(ClipboardFormatId::CF_DIB);
        assert_eq!(connection.clipboard.text(Instant::now()), Text::Nothing);
        assert!(connection.next().is_none());
    }

    #[test]
    fn whoever_copied_last_owns_the_clipboard() {
        let format = ClipboardFormat::new(ClipboardFormatId::CF_UNICODETEXT);
        let mut connection = Connection::ready(format.id());
        let now = Instant::now();
        assert_eq!(connection.clipboard.text(now), Text::Asked);
        assert!(connection.clipboard.offer("mine".to_owned()));
        let own = Text::Own("mine".to_owned());
        assert_eq!(connection.clipboard.text(now), own);
        connection.channel.on_remote_copy(&[format]);
        assert_eq!(connection.clipboard.text(now), Text::Asked);
        connection.channel.on_remote_copy(&[]);
        assert_eq!(connection.clipboard.text(now), Text::Nothing);
    }

    #[test]
    fn a_text_that_was_asked_for_is_pasted_once() {
        let mut connection = Connection::ready(ClipboardFormatId::CF_UNICODETEXT);
        let now = Instant::now();
        assert_eq!(connection.clipboard.text(now), Text::Asked);
        assert_eq!(connection.clipboard.text(now), Text::Asked);
        assert!(matches!(
            connection.next(),
            Some(ClipboardMessage::SendInitiatePaste(
                ClipboardFormatId::CF_UNICODETEXT
            ))
        ));
        assert!(connection.next().is_none());
        for _ in 0..2 {
            connection
                .channel
                .on_format_data_response(FormatDataResponse::new_unicode_string("Grüße"));
        }
        assert_eq!(connection.note(), "Grüße");
        assert_eq!(connection.clipboard.text(now), Text::Asked);
        connection
            .channel
            .on_format_data_response(FormatDataResponse::new_error());
        assert_eq!(connection.note(), "Grüße");
    }

    #[test]
    fn a_client_that_does_not_answer_is_asked_again() {
        let mut connection = Connection::ready(ClipboardFormatId::CF_UNICODETEXT);
        let now = Instant::now();
        for later in [Duration::ZERO, ANSWER_MAX] {
            assert_eq!(connection.clipboard.text(now + later), Text::Asked);
            assert!(connection.next().is_some());
        }
    }

    #[test]
    fn an_offered_text_is_given_as_text_alone() {
        let mut connection = Connection::ready(ClipboardFormatId::CF_UNICODETEXT);
        assert!(connection.clipboard.offer("ä\nb".to_owned()));
        let Some(ClipboardMessage::SendInitiateCopy(formats)) = connection.next() else {
            panic!("no list of formats");
        };
        assert_eq!(formats.len(), 1);
        let mut answer = |format| {
            connection
                .channel
                .on_format_data_request(FormatDataRequest { format });
            match connection.sent.try_recv() {
                Ok(ServerEvent::Clipboard(ClipboardMessage::SendFormatData(data))) => data,
                _ => panic!("no data"),
            }
        };
        let text = answer(ClipboardFormatId::CF_UNICODETEXT);
        assert_eq!(text.data(), utf16("ä\r\nb\0"));
        assert!(answer(ClipboardFormatId::CF_TEXT).is_error());
    }

    #[test]
    fn whatever_a_client_sends_becomes_a_bounded_text() {
        let long = "ß".repeat(10 * TAKEN_CHARACTERS_MAX);
        let cases: [(&[u8], &str); 7] = [
            (&[], ""),
            (&[0x41], ""),
            (&utf16("a\0b"), "a"),
            (&utf16("a\r\nb\rc\nd\r\n"), "a\nb\nc\nd\n"),
            (&utf16("Köln 😀"), "Köln 😀"),
            (&[0x00, 0xd8, 0x41, 0x00], "\u{fffd}A"),
            (&utf16(&long), &long[..2 * TAKEN_CHARACTERS_MAX]),
        ];
        for (data, expected) in cases {
            assert_eq!(text_of(data), expected);
        }
    }
}
