//! The guest's end of a resumable session as it really runs, under connections that break, stall and arrive out of order.
//!
//! The input is a history. A model of the near end dials, greets, sends, receives; a connection may be closed, or be left lying with bytes
//! under way, which arrive later, after newer connections have taken over; greetings may come in another order than they were sent; time passes, up to the
//! silence after which the far end gives a connection up. At every moment the agent has got exactly a beginning of what the shim said, and
//! the shim of what the agent said. When the trouble ends everything arrives and the session ends well at both ends.

mod near;

use std::sync::Arc;
use std::time::Duration;

use near::{Broken, Near};
use tokio::io::DuplexStream;

use super::Target;
use crate::input::{Input, in_virtual_time};

/// The target.
pub const TARGET: Target =
    Target { name: "session_far", check, max_len: 128, memory: 4 << 20, memory_per_byte: 1 << 17 };

fn check(data: &[u8]) {
    in_virtual_time(async {
        let mut input = Input(data);
        // Filling the window takes long: few histories may.
        let mut world = Near::new(if input.byte() == 255 { 1 << 20 } else { 1 << 14 });
        while !input.0.is_empty() {
            step(&mut world, &mut input).await;
            world.check();
        }
        world.settle().await;
    });
}

async fn step(world: &mut Near, input: &mut Input<'_>) {
    let what = input.byte();
    let count = match what >> 6 {
        0 | 1 => usize::from(input.byte()),
        2 => usize::from(input.byte()) << 4,
        _ => usize::from(input.short()),
    };
    match what & 15 {
        0 => world.dial(),
        1 => world.lose(Broken::Closed),
        2 => world.lose(Broken::Stalled),
        3 => world.wake_old(count).await,
        4 => tokio::time::advance(Duration::from_millis(count as u64 % 10_000)).await,
        5 | 6 => world.shim_says(count),
        7 | 8 => world.agent_says(count).await,
        9..=11 => world.send(count).await,
        12 | 13 => world.receive(count).await,
        14 => world.agent_reads(count).await,
        _ => world.ask(),
    }
    near::turns(1 + usize::from(what >> 4 & 3)).await;
}

/// One end of a stream, of which the other is the session's agent.
type Agent = DuplexStream;
/// Shared by the tasks of a far end.
type Far = Arc<peerpods_agentlink::fuzzing::FarEnd<DuplexStream>>;
