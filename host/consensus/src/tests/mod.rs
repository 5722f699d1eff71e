mod alone;
mod bench;
mod broken;
mod cut;
mod group;
mod without_vote;
