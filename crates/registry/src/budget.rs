//! How many requests of one sort run at a registry at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// With how many a registry is met for the first time.
const FIRST: usize = 24;
/// Requests that were under way together fail together, which counts once.
const CUT_EVERY: Duration = Duration::from_secs(1);

/// Who waits for the answer of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lane {
    /// A client that has asked us: goes before background work.
    Client,
    /// Work that nobody waits for at this moment.
    #[default]
    Background,
}

/// The places for one sort of request at one registry.
///
/// How many there are adapts: one more after each full round of successes while the number was what held us back, half
/// of them when the registry shows that it is too much. A registry that asks for patience closes the gate to everybody.
pub(crate) struct Budget {
    most: usize,
    state: Mutex<State>,
}

struct State {
    limit: usize,
    used: usize,
    /// Successes since the limit last changed, counted only while it was reached.
    round: usize,
    cut: Option<Instant>,
    closed_until: Option<Instant>,
    clients: VecDeque<oneshot::Sender<Permit>>,
    background: VecDeque<oneshot::Sender<Permit>>,
}

/// A place, free again when dropped.
pub(crate) struct Permit {
    budget: Option<Arc<Budget>>,
}

/// The gate stays closed for so long, which is more than anybody should wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed(pub(crate) Duration);

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        let state = State {
            limit: FIRST.min(most),
            used: 0,
            round: 0,
            cut: None,
            closed_until: None,
            clients: VecDeque::new(),
            background: VecDeque::new(),
        };
        Arc::new(Self { most, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave the numbers half-written, so the poison is of no account.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the gate and for a place. Gives up at once if the gate stays closed for more than `patience`.
    pub(crate) async fn acquire(self: &Arc<Self>, lane: Lane, patience: Duration) -> Result<Permit, Closed> {
        let permit = self.place(lane).await;
        loop {
            let closed = self.state().closed_until.filter(|until| *until > Instant::now());
            let Some(until) = closed else { return Ok(permit) };
            let wait = until - Instant::now();
            if wait > patience {
                return Err(Closed(wait));
            }
            sleep_until(until).await;
        }
    }

    async fn place(self: &Arc<Self>, lane: Lane) -> Permit {
        let waiting = {
            let mut state = self.state();
            if state.used < state.limit {
                state.used += 1;
                return Permit { budget: Some(Arc::clone(self)) };
            }
            let (sender, receiver) = oneshot::channel();
            match lane {
                Lane::Client => state.clients.push_back(sender),
                Lane::Background => state.background.push_back(sender),
            }
            receiver
        };
        // A sender is dropped only together with the budget, which `self` keeps.
        waiting.await.unwrap_or(Permit { budget: None })
    }

    /// Gives free places to those who wait, clients first.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state();
                if state.used >= state.limit {
                    return;
                }
                let Some(next) = state.clients.pop_front().or_else(|| state.background.pop_front()) else {
                    return;
                };
                state.used += 1;
                next
            };
            if let Err(mut unwanted) = next.send(Permit { budget: Some(Arc::clone(self)) }) {
                unwanted.budget = None;
                self.state().used -= 1;
            }
        }
    }

    /// A request went well.
    pub(crate) fn did_well(self: &Arc<Self>) {
        {
            let mut state = self.state();
            if state.used < state.limit || state.limit >= self.most {
                return;
            }
            state.round += 1;
            if state.round < state.limit {
                return;
            }
            state.round = 0;
            state.limit += 1;
        }
        self.hand_out();
    }

    /// The registry showed that it is asked too much.
    pub(crate) fn overloaded(&self, now: Instant) {
        let mut state = self.state();
        state.round = 0;
        if state.cut.is_none_or(|cut| now >= cut + CUT_EVERY) {
            state.cut = Some(now);
            state.limit = (state.limit / 2).max(1);
        }
    }

    /// Nobody sends anything before `until`.
    pub(crate) fn close(&self, until: Instant) {
        let mut state = self.state();
        state.closed_until = state.closed_until.max(Some(until));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.take() {
            budget.state().used -= 1;
            budget.hand_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn take(budget: &Arc<Budget>, count: usize) -> Vec<Permit> {
        let mut permits = Vec::new();
        for _ in 0..count {
            permits.push(budget.acquire(Lane::Background, PATIENCE).await.ok().unwrap());
        }
        permits
    }

    #[tokio::test]
    async fn clients_go_first_and_who_left_is_passed_over() {
        let budget = Budget::new(1);
        let held = take(&budget, 1).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |lane, name: &'static str| {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tokio::spawn(async move {
                let _permit = budget.acquire(lane, PATIENCE).await;
                order.lock().unwrap().push(name);
            })
        };
        let mut tasks = Vec::new();
        for (lane, name) in [
            (Lane::Background, "first"),
            (Lane::Background, "gone"),
            (Lane::Background, "second"),
            (Lane::Client, "client"),
        ] {
            tasks.push(wait(lane, name));
            tokio::task::yield_now().await;
        }
        tasks[1].abort();
        tokio::task::yield_now().await;
        drop(held);
        for task in tasks {
            let _ = task.await;
        }
        assert_eq!(*order.lock().unwrap(), ["client", "first", "second"]);
        assert_eq!(budget.state().used, 0);
    }

    #[tokio::test]
    async fn the_limit_grows_by_one_a_round_and_halves_once_a_second() {
        let budget = Budget::new(FIRST + 2);
        let permits = take(&budget, FIRST).await;
        for _ in 0..FIRST {
            budget.did_well();
        }
        assert_eq!(budget.state().limit, FIRST + 1);
        drop(permits);
        for _ in 0..100 {
            budget.did_well();
        }
        assert_eq!(budget.state().limit, FIRST + 1, "it was not what held us back");
        let now = Instant::now();
        budget.overloaded(now);
        budget.overloaded(now + CUT_EVERY / 2);
        assert_eq!(budget.state().limit, FIRST.div_ceil(2));
        for second in 1..9 {
            budget.overloaded(now + CUT_EVERY * second);
        }
        assert_eq!(budget.state().limit, 1);
        let _one = take(&budget, 1).await;
        budget.did_well();
        assert_eq!(budget.state().limit, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_holds_everybody_up_for_a_while_but_not_for_long() {
        let budget = Budget::new(4);
        let begun = Instant::now();
        budget.close(begun + Duration::from_secs(30));
        budget.close(begun + Duration::from_secs(5));
        let (one, two) =
            tokio::join!(budget.acquire(Lane::Client, PATIENCE), budget.acquire(Lane::Background, PATIENCE));
        assert!(one.is_ok() && two.is_ok());
        assert!(begun.elapsed() >= Duration::from_secs(30));
        budget.close(Instant::now() + Duration::from_secs(3600));
        let closed = budget.acquire(Lane::Client, PATIENCE).await.err().unwrap();
        assert!(closed.0 > PATIENCE);
        drop((one, two));
        assert_eq!(budget.state().used, 0);
    }
}
