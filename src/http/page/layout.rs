//! What every page has around its own matter.

use maud::{DOCTYPE, Markup, html};

use super::assets;

/// A whole page with `body` as its main part.
pub(super) fn page(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " \u{b7} silkrate" }
                link rel="icon" type="image/svg+xml" href=(assets::icon_path());
                link rel="stylesheet" href=(assets::style_path());
                script src=(assets::script_path()) defer {}
            }
            body {
                a class="skip" href="#main" { "Skip to the rates" }
                header {
                    a class="brand" href="/" { "silkrate" }
                    // Filled by the script: without one, nothing here is live.
                    p id="link" role="status" {}
                }
                noscript {
                    p class="notice" { "Without JavaScript this page does not update itself, and shows no ages: reload it." }
                }
                main id="main" tabindex="-1" { (body) }
                footer {
                    p { "Times are UTC. A published rate stands for half a unit in its last digit either side; "
                        "bounds of changes follow from that." }
                }
                p id="announce" class="unseen" aria-live="polite" {}
            }
        }
    }
}
