mod alone;
mod anew;
mod behind;
mod bench;
mod broken;
mod cut;
mod group;
mod without_vote;
