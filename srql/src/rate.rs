//! Rates of counters: what they grew by, per second. A value lower than the one before it is a counter that began anew.

/// The rate of the values of a group, each with its time, in an order: an expression, double precision. It is null of fewer
/// than two values, and where no time passed between the first and the last.
pub(crate) fn rate(value: &str, time: &str, order: &str, there: &str) -> String {
    let listed = |what: &str| {
        format!("array_agg({what} ORDER BY {order}) FILTER (WHERE {there} AND {time} IS NOT NULL)")
    };
    let (values, times) = (listed(&format!("{value}::numeric")), listed(time));
    format!(
        "(SELECT (sum(CASE WHEN s.value < s.before THEN s.value ELSE s.value - s.before END) \
         / nullif(extract(epoch FROM max(s.at) - min(s.at)), 0))::double precision \
         FROM (SELECT u.value, u.at, lag(u.value) OVER (ORDER BY u.place) AS before \
         FROM unnest({values}, {times}) WITH ORDINALITY AS u(value, at, place)) AS s)"
    )
}
