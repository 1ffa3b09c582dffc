//! What `modules` shows: every name that leads to a module.

use super::{BuiltIn, Modules};
use crate::config::fixed;
use crate::daemon::blocking;
use crate::model::name::Name;
use crate::model::reply::ModuleView;
use std::collections::BTreeMap;
use std::path::PathBuf;

impl Modules {
    /// Every module that a name leads to, by name.
    pub(in crate::daemon) async fn list(&self) -> Vec<ModuleView> {
        let this = self.clone();
        blocking(move || this.list_now()).await
    }

    fn list_now(&self) -> Vec<ModuleView> {
        let mut views: BTreeMap<String, ModuleView> = BTreeMap::new();
        {
            let state = self.lock();
            for row in state.stored.values() {
                if let Ok(name) = Name::try_from(row.name.clone()) {
                    let digest = Some(row.sha256.clone());
                    let view = ModuleView { name, source: "stored".into(), path: None, bytes: row.bytes, digest };
                    views.insert(row.name.clone(), view);
                }
            }
        }
        for directory in &self.0.directories {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let mut found: Vec<PathBuf> = entries
                .take(fixed::DIRECTORY_ENTRIES_MAX)
                .filter_map(|e| e.ok().map(|e| e.path()))
                .filter(|p| p.extension().is_some_and(|e| e == "wasm" || e == "wat"))
                .collect();
            found.sort();
            for path in found {
                let Some(name) = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<Name>().ok()) else {
                    continue;
                };
                let Ok(meta) = path.metadata() else { continue };
                let digest = self.lock().files.get(&path).map(|(_, content)| content.digest.to_string());
                views.entry(name.to_string()).or_insert_with(|| ModuleView {
                    name,
                    source: "directory".into(),
                    path: Some(path.to_string_lossy().into_owned()),
                    bytes: meta.len(),
                    digest,
                });
            }
        }
        for BuiltIn { name, text, digest } in &self.0.built_in {
            views.entry(name.to_string()).or_insert_with(|| ModuleView {
                name: name.clone(),
                source: "built-in".into(),
                path: None,
                bytes: text.len() as u64,
                digest: Some(digest.to_string()),
            });
        }
        views.into_values().collect()
    }
}
