//! Asks about N jobs, 64 at a time, and parses each answer. No database.
//!
//! usage: bench-floor N URL

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

const AT_ONCE: usize = 64;

#[derive(Deserialize)]
struct Prediction {
    id: String,
    status: String,
    #[expect(dead_code, reason = "parsed, as whoever needs the reason would")]
    error: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), reqwest::Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(count), Some(url)) = (arguments.next(), arguments.next()) else {
        panic!("usage: bench-floor N URL");
    };
    let count: u64 = count.parse().expect("N is a number");
    let client = &reqwest::Client::builder().pool_max_idle_per_host(AT_ONCE).build()?;
    let url = &url;
    let failed = stream::iter(1..=count)
        .map(|nth| async move {
            let job = format!("job-{nth:032x}");
            let answer = client.get(format!("{url}/v1/predictions/{job}")).send().await?;
            let prediction: Prediction = answer.error_for_status()?.json().await?;
            assert_eq!(prediction.id, job);
            Ok::<_, reqwest::Error>(u64::from(prediction.status == "failed"))
        })
        .buffer_unordered(AT_ONCE)
        .try_fold(0, |sum, one| async move { Ok(sum + one) })
        .await?;
    assert_eq!(failed, count);
    Ok(())
}
