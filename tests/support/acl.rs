//! Access control lists as Linux stores them in an extended attribute.

/// The attribute of a file's own list.
pub const ACL: &str = "system.posix_acl_access";

/// A list for the owner, the user 12345, the group, the mask and all others, as three bits each.
pub fn acl(permissions: [u16; 5]) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let kinds: [(u16, u32); 5] =
        [(0x01, NOBODY), (0x02, 12345), (0x04, NOBODY), (0x10, NOBODY), (0x20, NOBODY)];
    let entries = kinds.iter().zip(permissions).flat_map(|((tag, id), permissions)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    2u32.to_le_bytes().into_iter().chain(entries).collect()
}
