//! What a replica counts.

use unisono_consensus::Complaints;
use unisono_node::Probe;
use unisono_types::{Done, Work};

/// Every counter, looked up once.
pub(super) struct Counters {
    pub(super) wakeups: metrics::Counter,
    pub(super) messages: metrics::Counter,
    pub(super) requests: metrics::Counter,
    pub(super) finished: metrics::Counter,
    pub(super) replies: metrics::Counter,
    pub(super) decisions: metrics::Gauge,
    pub(super) executed: metrics::Gauge,
    pub(super) view: metrics::Gauge,
    pub(super) pending: metrics::Gauge,
    pub(super) clients: metrics::Gauge,
    pub(super) peers: metrics::Gauge,
    pub(super) log_queue: metrics::Gauge,
    /// 1 while a person must look at a proof of two histories.
    pub(super) halted: metrics::Gauge,
    /// 1 while the vote register must stay silent.
    pub(super) silent: metrics::Gauge,
    /// Seconds that agreed time is ahead of the own clock, where that matters.
    pub(super) clock_skew: metrics::Gauge,
    /// Wishes for another leader, by reason, in the order of `Complaints::by_reason`.
    pub(super) complaints: [metrics::Counter; 4],
    pub(super) outgoing: metrics::Gauge,
    pub(super) incoming: metrics::Gauge,
    pub(super) sync: metrics::Histogram,
    pub(super) group: metrics::Histogram,
    pub(super) wakeup: metrics::Histogram,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            wakeups: metrics::counter!("unisono_wakeups_total"),
            messages: metrics::counter!("unisono_messages_total"),
            requests: metrics::counter!("unisono_requests_ordered_total"),
            finished: metrics::counter!("unisono_requests_finished_total"),
            replies: metrics::counter!("unisono_replies_total"),
            decisions: metrics::gauge!("unisono_height"),
            executed: metrics::gauge!("unisono_executed"),
            view: metrics::gauge!("unisono_view"),
            pending: metrics::gauge!("unisono_pending_frames"),
            clients: metrics::gauge!("unisono_client_links"),
            peers: metrics::gauge!("unisono_peer_links_up"),
            log_queue: metrics::gauge!("unisono_log_queue_bytes"),
            halted: metrics::gauge!("unisono_halted"),
            silent: metrics::gauge!("unisono_register_silent"),
            clock_skew: metrics::gauge!("unisono_clock_skew_seconds"),
            complaints: Complaints::default()
                .by_reason()
                .map(|(reason, _)| metrics::counter!("unisono_leader_complaints_total", "reason" => reason)),
            outgoing: metrics::gauge!("unisono_peer_bytes_under_way", "direction" => "out"),
            incoming: metrics::gauge!("unisono_peer_bytes_under_way", "direction" => "in"),
            sync: metrics::histogram!("unisono_log_sync_seconds"),
            group: metrics::histogram!("unisono_log_group_size"),
            wakeup: metrics::histogram!("unisono_wakeup_messages_size"),
        }
    }
}

impl Probe for Counters {
    fn work(&mut self, work: &Work) {
        if matches!(work, Work::Request { .. }) {
            self.requests.increment(1);
        }
    }

    fn done(&mut self, done: &Done) {
        if matches!(done, Done::Executed { .. }) {
            self.finished.increment(1);
        }
    }
}
