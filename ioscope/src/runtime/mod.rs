//! Recognises event-loop runtimes from /proc facts.
