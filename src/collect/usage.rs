//! stub
mod pace;
mod place;
mod walk;
