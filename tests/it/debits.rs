//! Debits of a charge in the ledger, compared with the charge's own draw.

use crate::world::{HOUR, MINUTE, World, on_both};

/// An entry of the platform's that is no refund.
fn entry(world: &World, id: &str, charge: &str, credits: &str, refund: &str) -> String {
    let at = world.at(world.now() - 20 * MINUTE);
    format!(
        "INSERT INTO ledger_entries VALUES ('{id}', 'ada', 'wallet', {credits}, 'usage', '{charge}', NULL, {refund}, {at});"
    )
}

on_both! {
    /// The charge says that 10 was drawn. The ledger records the real debit, and was not compared.
    async fn p03_a_charge_whose_debits_do_not_add_up_to_its_draw_is_held(world) {
        world.balance("ada", 0, 0).await;
        let mut sql = String::new();
        for (id, debits) in [
            ("none", &[][..]),
            ("exact", &["-10"]),
            ("in-parts", &["-4", "-6"]),
            ("corrected", &["-30", "20"]),
            ("only-gifts", &["5"]),
            ("less", &["-9"]),
            ("more", &["-10", "-10"]),
            ("given-back", &["-10", "10"]),
            ("far-more", &["-9223372036854775807", "-9223372036854775807"]),
        ] {
            world.charge(id).failed().insert().await;
            for (nth, credits) in debits.iter().enumerate() {
                sql += &entry(&world, &format!("{id}-{nth}"), id, credits, "NULL");
            }
        }
        // An entry with a refund's id belongs to that refund, and says nothing about the draw.
        sql += &entry(&world, "reversal", "exact", "-3", "'r9'");
        world.run(&sql).await;
        let report = world.pass().await;
        for id in ["none", "exact", "in-parts", "corrected", "only-gifts"] {
            assert_eq!(world.fate(id, 0).await, "refunded no_provider_job", "{id}: {:?}", report.outcomes);
        }
        for id in ["less", "more", "given-back", "far-more"] {
            assert_eq!(world.fate(id, 0).await, "held debits_mismatch", "{id}");
        }
        let told: Vec<_> = report.findings.iter().filter(|each| each.kind == "debits_mismatch").collect();
        assert_eq!(told.len(), 4, "{:?}", report.findings);
        assert!(told.iter().any(|each| each.about == "charge less" && each.detail.contains("come to -9;")), "{told:?}");
        // Corrected, it is paid within the hour.
        world.run(&entry(&world, "less-1", "less", "-1", "NULL")).await;
        world.pass_time(2 * HOUR);
        world.pass().await;
        assert_eq!(world.fate("less", 0).await, "refunded no_provider_job");
    }
}
