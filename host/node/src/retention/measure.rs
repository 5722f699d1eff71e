//! How full the disk is.

use vouch_commitlog::LogUsage;
use vouch_storage::Space;

use super::Keeper;

impl Keeper {
    /// Measures the disk. Returns whether it is full.
    pub(super) async fn measure(&self) -> bool {
        let short = self.of.shard.standing().await.map_or(None, |standing| standing.shortage);
        let (disk, upkeep) = (self.of.disk.clone(), self.of.upkeep.clone());
        let (data_dir, disk_limit) = (self.of.data_dir.clone(), self.of.disk_limit);
        let measured = tokio::task::spawn_blocking(move || {
            let LogUsage { segment_bytes, held_bytes, spare_bytes, reused_bytes, .. } = upkeep.housekeeping.usage();
            // Files that wait to become segments again are room for messages, and so is what is left of those that did:
            // a disk whose released files the log used at once would count as full for ever.
            let room = spare_bytes + reused_bytes;
            Ok::<_, std::io::Error>(disk.measured(
                Space::of_folder(&data_dir)?,
                room,
                segment_bytes + held_bytes,
                disk_limit,
                short,
            ))
        });
        match measured.await {
            Ok(Ok(full)) => full,
            Ok(Err(error)) => {
                tracing::warn!(%error, "how full the disk is cannot be found out");
                false
            }
            Err(_) => false,
        }
    }
}
