//! Identities of the methods that a session distinguishes before it parses them, or names in a close.

use crate::wire::method::MethodId;

pub(super) const CONNECTION_START: MethodId = MethodId { class_id: 10, method_id: 10 };
pub(super) const CONNECTION_START_OK: MethodId = MethodId { class_id: 10, method_id: 11 };
pub(super) const CONNECTION_TUNE: MethodId = MethodId { class_id: 10, method_id: 30 };
pub(super) const CONNECTION_OPEN: MethodId = MethodId { class_id: 10, method_id: 40 };
pub(super) const CHANNEL_CLOSE: MethodId = MethodId { class_id: 20, method_id: 40 };
pub(super) const CHANNEL_CLOSE_OK: MethodId = MethodId { class_id: 20, method_id: 41 };
pub(super) const QUEUE_DECLARE: MethodId = MethodId { class_id: 50, method_id: 10 };
pub(super) const QUEUE_DELETE: MethodId = MethodId { class_id: 50, method_id: 40 };
pub(super) const BASIC_CANCEL: MethodId = MethodId { class_id: 60, method_id: 30 };
pub(super) const BASIC_PUBLISH: MethodId = MethodId { class_id: 60, method_id: 40 };
pub(super) const BASIC_GET: MethodId = MethodId { class_id: 60, method_id: 70 };
pub(super) const BASIC_ACK: MethodId = MethodId { class_id: 60, method_id: 80 };
pub(super) const BASIC_REJECT: MethodId = MethodId { class_id: 60, method_id: 90 };
pub(super) const BASIC_NACK: MethodId = MethodId { class_id: 60, method_id: 120 };
