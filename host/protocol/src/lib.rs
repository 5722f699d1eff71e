//! The wire protocol `apache.rocketmq.v2`: types, validation, limits, receipt handles.

pub mod wire;
