//! The layout that all pages share: head, header, footer and live regions.

use maud::{DOCTYPE, Markup, html};

use super::assets;

/// Returns the head of a page. `more` follows what all pages have.
pub(super) fn head(title: &str, more: &Markup) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " \u{b7} silkrate" }
            link rel="icon" type="image/svg+xml" href=(assets::icon_path());
            link rel="stylesheet" href=(assets::style_path());
            (more)
        }
    }
}

/// Returns a complete page with `body` as its main part.
pub(super) fn page(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, &html! { script src=(assets::script_path()) defer {} }))
            body {
                a class="skip" href="#main" { "Skip to the rates" }
                header {
                    a class="brand" href="/" { "silkrate" }
                    // The script writes the state of the live connection here.
                    p id="link" role="status" {}
                }
                noscript {
                    p class="notice" { "Without JavaScript, this page shows no ages and does not update. Reload it." }
                }
                main id="main" tabindex="-1" { (body) }
                footer {
                    p {
                        "All times are UTC. A published rate is rounded: the true rate may differ by half a unit of "
                        "the last digit. The bounds of changes follow from this rounding."
                    }
                }
                p id="announce" class="unseen" aria-live="polite" {}
            }
        }
    }
}
