//! How an event becomes a line (spec operations 8).

use std::cell::Cell;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::escape::{self, Clipped, push};
use super::filter::CRATE_PREFIX;
use super::writer::Queue;
use crate::report::time;
use crate::sys::clock::Clock;

/// What an event's message has room for before it grows, bytes.
const MESSAGE_BYTES: usize = 32;
/// What its fields have room for: those of a line of the access log, bytes.
const FIELDS_BYTES: usize = 768;

/// The message of the line that follows a loss.
const LOSS: &str = "log lines were dropped";

thread_local! {
    /// What the last event of this thread was rendered with, so that the next one allocates
    /// nothing.
    static FIELDS: Cell<Option<Fields>> = const { Cell::new(None) };
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

/// The two forms of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `time TAB level TAB target TAB message TAB key=value key=value`.
    Plain,
    /// One JSON object.
    Json,
}

/// Renders events and hands the lines to the writer.
#[derive(Debug)]
pub(super) struct Output {
    style: Style,
    clock: Clock,
    queue: Queue,
}

/// The fields of a span, rendered when it was made.
struct SpanText(String);

/// What precedes an event's own text in a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    /// How bad it is.
    pub(super) level: Level,
    /// The module or topic.
    pub(super) target: &'a str,
}

/// The fields of one event or span, rendered as they are visited.
pub(super) struct Fields {
    style: Style,
    message: String,
    pairs: String,
    scratch: Clipped,
}

impl Output {
    pub(super) fn new(style: Style, clock: Clock, queue: Queue) -> Self {
        Self { style, clock, queue }
    }
}

impl<S> Layer<S> for Output
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut fields = Fields::new(self.style);
        attributes.record(&mut fields);
        span.extensions_mut().insert(SpanText(fields.pairs));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(text) = extensions.get_mut::<SpanText>() else { return };
        let mut fields = Fields::new(self.style);
        fields.pairs = std::mem::take(&mut text.0);
        values.record(&mut fields);
        text.0 = fields.pairs;
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let metadata = event.metadata();
        let head = Head { level: *metadata.level(), target: metadata.target() };
        let mut fields = Fields::borrow(self.style);
        event.record(&mut fields);
        let mut spans = String::new();
        for span in ctx.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let text = extensions.get::<SpanText>().map_or("", |text| text.0.as_str());
            match (self.style, text) {
                (Style::Plain, "") => push(&mut spans, format_args!(":{}", span.name())),
                (Style::Plain, _) => push(&mut spans, format_args!(":{}{{{text}}}", span.name())),
                (Style::Json, _) => {
                    spans.push(',');
                    escape::json(&mut spans, span.name());
                    push(&mut spans, format_args!(":{{{text}}}"));
                }
            }
        }
        let mut line = LINE.take();
        line.clear();
        fields.line(&mut line, &time::micros(self.clock.wall()), head, &spans);
        self.queue.push(&line);
        LINE.set(line);
        FIELDS.set(Some(fields));
    }
}

impl Fields {
    pub(super) fn new(style: Style) -> Self {
        let message = String::with_capacity(MESSAGE_BYTES);
        let pairs = String::with_capacity(FIELDS_BYTES);
        Self { style, message, pairs, scratch: Clipped::default() }
    }

    /// Those of the last event of this thread, emptied. An event within an event gets new ones.
    fn borrow(style: Style) -> Self {
        match FIELDS.take() {
            Some(mut fields) => {
                fields.message.clear();
                fields.pairs.clear();
                fields.style = style;
                fields
            }
            None => Self::new(style),
        }
    }

    /// What the log says of its own losses.
    pub(super) fn of_loss(style: Style, lines: u64) -> Self {
        let mut fields = Self::new(style);
        match style {
            Style::Plain => fields.message.push_str(LOSS),
            Style::Json => escape::json(&mut fields.message, LOSS),
        }
        fields.key("lines");
        push(&mut fields.pairs, format_args!("{lines}"));
        fields
    }

    /// Appends the whole line with its line feed. Nothing follows the message if there are no
    /// fields.
    pub(super) fn line(&self, line: &mut String, time: &str, head: Head<'_>, spans: &str) {
        let Self { style, message, pairs, .. } = self;
        let level = level_name(head.level);
        match style {
            Style::Plain => {
                let target = head.target.strip_prefix(CRATE_PREFIX).unwrap_or(head.target);
                for part in [time, "\t", level, "\t", target, spans, "\t", message] {
                    line.push_str(part);
                }
                if !pairs.is_empty() {
                    line.push('\t');
                    line.push_str(pairs);
                }
            }
            Style::Json => {
                push(line, format_args!("{{\"level\":\"{level}\",\"time\":\"{time}\","));
                line.push_str("\"scope\":");
                escape::json(line, head.target);
                if !message.is_empty() {
                    push(line, format_args!(",\"message\":{message}"));
                }
                if !pairs.is_empty() {
                    push(line, format_args!(",{pairs}"));
                }
                push(line, format_args!("{spans}}}"));
            }
        }
        line.push('\n');
    }

    fn key(&mut self, name: &str) {
        match self.style {
            Style::Plain => {
                if !self.pairs.is_empty() {
                    self.pairs.push(' ');
                }
                self.pairs.push_str(name);
                self.pairs.push('=');
            }
            Style::Json => {
                let comma = if self.pairs.is_empty() { "" } else { "," };
                self.pairs.push_str(comma);
                escape::json(&mut self.pairs, name);
                self.pairs.push(':');
            }
        }
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        self.key(field.name());
        push(&mut self.pairs, format_args!("{value}"));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return self.record_debug(field, &format_args!("{value}"));
        }
        self.key(field.name());
        let text = self.scratch.text(value);
        match self.style {
            Style::Plain => escape::quoted(&mut self.pairs, text),
            Style::Json => escape::json(&mut self.pairs, text),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let is_message = field.name() == "message";
        if !is_message {
            self.key(field.name());
        }
        let text = self.scratch.render(format_args!("{value:?}"));
        match (self.style, is_message) {
            (Style::Plain, true) => escape::bare(&mut self.message, text),
            (Style::Plain, false) if escape::is_word(text) => self.pairs.push_str(text),
            (Style::Plain, false) => escape::quoted(&mut self.pairs, text),
            (Style::Json, true) => escape::json(&mut self.message, text),
            (Style::Json, false) => escape::json(&mut self.pairs, text),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.number(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.number(field, value);
        } else {
            // JSON has no such numbers.
            self.record_debug(field, &format_args!("{value}"));
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}
