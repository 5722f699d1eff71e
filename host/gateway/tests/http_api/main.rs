//! The HTTP API on a real node and a real socket. Every answer is held against `openapi.json`.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod api;
mod bindings;
mod consumers;
mod damage;
mod description;
mod door;
#[path = "../support/folder.rs"]
mod folder;
mod form;
mod kept;
mod logs;
mod members;
mod messages;
mod names;
mod numbers;
mod places;
mod plugins;
mod running;
mod secrets;
mod settings;
mod starting;
mod transactions;
