mod members;
mod nodes;
